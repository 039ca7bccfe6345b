"""Call frame rows of code whose listing is beside them."""

from __future__ import annotations

from fentry.x86.unwind import Row, frame_rows


def test_pushes_pops_and_branches_are_followed() -> None:
    code = bytes.fromhex(
        "50"  # 0  push rax
        "53"  # 1  push rbx
        "7405"  # 2  je 9
        "5b"  # 4  pop rbx
        "58"  # 5  pop rax
        "c3"  # 6  ret
        "9090"  # 7  never reached
        "4883ec10"  # 9  sub rsp, 16
        "e800000000"  # 13 call 18
        "488d642410"  # 18 lea rsp, [rsp + 16]
        "ebeb"  # 23 jmp 4
    )

    assert frame_rows(code) == [
        Row(0, 7, 8),
        Row(1, 7, 16),
        Row(2, 7, 24, ((3, 24),)),
        Row(5, 7, 16),
        Row(6, 7, 8),
        Row(9, 7, 24, ((3, 24),)),
        Row(13, 7, 40, ((3, 24),)),
        Row(23, 7, 24, ((3, 24),)),
    ]


def test_a_frame_by_rbp_holds_whatever_rsp_does() -> None:
    code = bytes.fromhex(
        "55"  # 0  push rbp
        "4889e5"  # 1  mov rbp, rsp
        "4883e4c0"  # 4  and rsp, -64
        "4829c4"  # 8  sub rsp, rax
        "4889ec"  # 11 mov rsp, rbp
        "5d"  # 14 pop rbp
        "ffe0"  # 15 jmp rax
    )

    assert frame_rows(code) == [
        Row(0, 7, 8),
        Row(1, 7, 16, ((6, 16),)),
        Row(4, 6, 16, ((6, 16),)),
        Row(14, 7, 16, ((6, 16),)),
        Row(15, 7, 8),
    ]


def test_where_rsp_becomes_anything_nothing_is_claimed() -> None:
    code = bytes.fromhex(
        "4889c4"  # 0 mov rsp, rax
        "5b"  # 3 pop rbx
        "c3"  # 4 ret
    )

    assert frame_rows(code) == [Row(0, 7, 8)]


def test_code_that_takes_more_than_it_has_is_followed_no_further() -> None:
    assert frame_rows(bytes.fromhex("5b5b5b90")) == [Row(0, 7, 8), Row(1, 7, 0)]
