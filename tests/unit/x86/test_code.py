"""The listing is decoded from the bytes and shows labels, data and comments."""

from __future__ import annotations

from fentry.x86.asm import Asm
from fentry.x86.code import Code
from fentry.x86.operands import qword
from fentry.x86.registers import rax, rcx, rip


def test_listing_shows_bytes_labels_data_and_comments() -> None:
    asm = Asm()
    asm.comment("count the call")
    asm.mov(rcx, asm.entry(8), comment="= parent_ip")
    asm.label("again")
    asm.inc(qword[rip("counter")], lock=True)
    asm.jne("again")
    asm.jmp(0x402000)
    asm.label("counter")
    asm.quad("again")
    asm.long(0x53053053)
    asm.bytes(b"\x01\x02")

    listing = asm.assemble(0x401000).listing({0x402000: "body"})

    assert listing == (
        "        ; count the call\n"
        "  0000  48 8b 4c 24 08                 mov     rcx, [rsp + 8]"
        "                   ; = parent_ip\n"
        "again:\n"
        "  0005  f0 48 ff 05 07 00 00 00        lock inc qword [rel counter]\n"
        "  000d  75 f6                          jne     again\n"
        "  000f  e9 ec 0f 00 00                 jmp     body\n"
        "counter:\n"
        "  0014  05 10 40 00 00 00 00 00        dq again\n"
        "  001c  53 30 05 53                    dd 0x53053053\n"
        "  0020  01 02                          db 0x01, 0x02\n"
    )


def test_listing_tells_the_bytes_and_not_the_source() -> None:
    asm = Asm()
    asm.push(rax, comment="save")
    code = asm.assemble(0x401000)

    changed = Code(code.origin, b"\xc3", code.labels, code.data_spans, {}, code.comments)

    assert "ret" in changed.listing() and "push" not in changed.listing()


def test_label_behind_the_last_byte_is_shown() -> None:
    asm = Asm()
    asm.ret()
    asm.label("end")
    code = asm.assemble(0x401000)

    assert code.listing().endswith("ret\nend:\n")
    assert code.end == code.labels["end"] == 0x401001


def test_undecodable_bytes_are_listed_as_such() -> None:
    assert "(bad)" in Code(0, b"\x06").listing()
