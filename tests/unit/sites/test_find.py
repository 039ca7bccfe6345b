"""Which functions get a site, on hand-written code that tries to be patched wrongly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.support.compiled import SHARED, addresses, assemble, compile_c, compile_cpp

from fentry.sites.find import analyse
from fentry.sites.site import ModuleSites, Reason, SiteKind
from fentry.symbols.elf import ElfImage

NOP, PROLOGUE, REFUSED = SiteKind.NOP, SiteKind.PROLOGUE, SiteKind.REFUSED


def function(name: str, body: str, *, size: str = "") -> str:
    return f"""
.globl {name}
.type {name},@function
.p2align 4, 0
{name}:
{body}
.size {name}, {size or ".-" + name}
"""


def judge(path: Path) -> dict[str, tuple[SiteKind, int, Reason]]:
    """name -> (kind, window, reason); every function of the file has exactly one row."""
    image = ElfImage.open(path)
    found = analyse(image)
    assert found.sites["entry"].tolist() == image.functions.rows["vaddr"].tolist()
    assert int(found.traceable.sum()) + sum(found.counts().values()) == len(image.functions)
    return {
        name: (SiteKind(row["kind"]), int(row["window"]), Reason(row["reason"]))
        for name, row in zip(image.functions.names, found.sites, strict=True)
    }


def judge_code(directory: Path, *functions: str) -> dict[str, tuple[SiteKind, int, Reason]]:
    return judge(assemble(directory, ".text\n" + "".join(functions)))


PLAIN = "push %rbp; mov %rsp,%rbp; sub $16,%rsp; leave; ret"


@pytest.mark.parametrize(
    ("body", "window"),
    [
        (PLAIN, 8),
        ("mov $1,%eax; ret", 5),
        ("endbr64; mov $1,%eax; ret", 5),
        ("push %r15; push %r14; push %r13; ret", 6),
        ("nop; nop; nop; push %rbx; mov %rdi,%rbx; pop %rbx; ret", 7),
        ("nopl (%rax); nopl (%rax); ret", 6),
        ("movabs $0x1122334455667788,%rax; ret", 10),
        ("mov %fs:0x28,%rax; ret", 9),
        ("lock incl (%rdi); incl (%rdi); ret", 5),
        ("rep movsb; xor %eax,%eax; nop; ret", 5),
    ],
)
def test_plain_first_instructions_are_a_prologue(tmp_path: Path, body: str, window: int) -> None:
    assert judge_code(tmp_path, function("f", body)) == {"f": (PROLOGUE, window, Reason.NONE)}


@pytest.mark.parametrize(
    "body",
    [
        ".byte 0x0f,0x1f,0x44,0,0; ret",
        "nop; nop; nop; nop; nop; ret",
        "nop; nop; nop; nop; nop; nop; nop; ret",
        "xchg %ax,%ax; nopl (%rax); ret",
        "nopl (%rax); xchg %ax,%ax; jmp g",
        ".byte 0x66,0x66,0x66,0x66,0x90; ret",
        "endbr64; .byte 0x0f,0x1f,0x44,0,0; ret",
        "endbr64; nop; nop; nop; nop; nop; call g",
    ],
)
def test_five_bytes_of_nops_at_the_entry_are_a_nop_site(tmp_path: Path, body: str) -> None:
    found = judge_code(tmp_path, function("f", body), function("g", PLAIN))

    assert found["f"] == (NOP, 5, Reason.NONE)


def test_an_endbr64_is_kept_and_the_site_is_after_it(tmp_path: Path) -> None:
    path = assemble(tmp_path, ".text" + function("f", "endbr64; mov $7,%eax; ret"))

    (row,) = analyse(ElfImage.open(path)).sites
    assert int(row["patch"]) == addresses(path)["f"] + 4
    assert bytes(row["original"])[:6] == bytes.fromhex("b807000000c3")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("ret", Reason.TOO_SHORT),
        ("xor %eax,%eax; ret", Reason.TOO_SHORT),
        ("endbr64; mov %rdi,%rax; ret", Reason.TOO_SHORT),
        ("call *%rax; ret; nop; nop", Reason.CALL),
        ("push %rbx; call *8(%rdi); pop %rbx; ret", Reason.CALL),
        ("push %rbx; call *0x18(%rsp); pop %rbx; ret", Reason.NOT_MOVABLE),
        ("xbegin 1f; 1: mov $1,%eax; ret", Reason.NOT_MOVABLE),
        ("ud2; mov $1,%eax; ret", Reason.NOT_MOVABLE),
        ("mov %rcx,%r10; syscall; ret", Reason.SYSTEM_CALL),
        ("int $0x80; mov $1,%eax; ret", Reason.SYSTEM_CALL),
        ("int3; mov $1,%eax; ret", Reason.SYSTEM_CALL),
        ("sysenter; mov $1,%eax; ret", Reason.SYSTEM_CALL),
        ("push %rax; hlt; mov $1,%eax; ret", Reason.NOT_MOVABLE),
        ("push %rax; popf; mov $1,%eax; ret", Reason.NOT_MOVABLE),
        ("push %rax; endbr64; mov $1,%eax; ret", Reason.NOT_MOVABLE),
        ("in %dx,%al; mov $1,%eax; ret", Reason.NOT_MOVABLE),
        ("push %rax; .byte 0x06; nop; nop; nop; nop", Reason.INVALID),
        ("mov $15,%eax; syscall", Reason.RESTORER),
        ("mov $15,%rax; syscall", Reason.RESTORER),
    ],
)
def test_what_cannot_be_moved_is_refused_with_its_reason(
    tmp_path: Path, body: str, reason: Reason
) -> None:
    assert judge_code(tmp_path, function("f", body))["f"] == (REFUSED, 0, reason)


@pytest.mark.parametrize(
    ("body", "window"),
    [
        ("mov f(%rip),%rax; ret", 7),
        ("lea f(%rip),%rax; ret", 7),
        ("vmovaps f(%rip),%ymm0; ret", 8),
        ("push %rbx; cmpl $7,f(%rip); pop %rbx; ret", 8),
        ("test %rdi,%rdi; je 1f; mov $1,%eax; 1: ret", 5),
        ("test %rdi,%rdi; je.d32 g; mov $1,%eax; ret", 9),
        ("jrcxz 1f; mov $1,%eax; 1: ret", 7),
        ("1: dec %rdi; loop 1b; mov $1,%eax; ret", 5),
        ("jmp 1f; 1: mov $1,%eax; ret", 7),
        ("jmp 1f; .byte 0x0f,0x0b,0x0f,0x0b; 1: ret", 2),
        ("ret; .byte 6,6,6,6,6", 1),
        ("test %edi,%edi; jne 1f; ret; 1: mov $1,%eax; ret", 5),
        ("sub $8,%rsp; call g; add $8,%rsp; ret", 9),
        ("push %rbx; mov %rsi,%rbx; call *8(%rdi); pop %rbx; ret", 7),
        ("call *g(%rip); ret", 6),
        ("jmp.d32 g", 5),
        ("jmp g; nop; nop; nop; nop", 2),
        ("jmp *g(%rip)", 6),
        ("xor %eax,%eax; ret; nop; nop; nop", 3),
        ("notrack jmp *%rax; nop; nop; nop; nop", 3),
    ],
)
def test_first_instructions_that_refer_to_their_address_are_relocated(
    tmp_path: Path, body: str, window: int
) -> None:
    found = judge_code(tmp_path, function("f", body), function("g", PLAIN))

    assert found["f"] == (SiteKind.RELOCATED, window, Reason.NONE)


@pytest.mark.parametrize("body", ["ret", "xor %eax,%eax; ret", "mov %rdi,%rax; ret", "jmp 1b"])
def test_a_short_function_is_traced_where_padding_follows(tmp_path: Path, body: str) -> None:
    before = function("g", "1: " + PLAIN)
    padding = ".p2align 4\n"
    found = judge_code(tmp_path, before, function("f", body), padding, function("h", PLAIN))

    assert found["f"][0] == SiteKind.RELOCATED
    assert found["f"][1] == {"ret": 1, "jmp 1b": 2}.get(body, 3 if "xor" in body else 4)


def test_a_branch_into_the_padding_that_a_short_function_takes_is_found(tmp_path: Path) -> None:
    source = ".text" + function("f", "ret") + "\n.p2align 4\n" + function("g", "nop; jmp f+3")

    assert judge(assemble(tmp_path, source))["f"] == (REFUSED, 0, Reason.BRANCH)


def test_a_short_function_in_front_of_another_is_refused(tmp_path: Path) -> None:
    crowded = function("g", PLAIN).replace(".p2align 4, 0", "")

    assert judge_code(tmp_path, function("f", "ret"), crowded)["f"] == (
        REFUSED, 0, Reason.TOO_SHORT,
    )  # fmt: skip


@pytest.mark.parametrize("offset", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    "branch", ["jmp", "je", "jmp.d32", "jne.d32", "loop", "jrcxz", "call", "xbegin", "bnd jmp"]
)
def test_a_branch_into_the_window_is_found_wherever_it_is(
    tmp_path: Path, branch: str, offset: int
) -> None:
    window = "push %r15; push %r14; push %r13; nop; ret"  # whole instructions end after 6 bytes
    found = judge_code(
        tmp_path,
        function("f", window),
        function("g", f"mov $1,%eax; nop; nop; {branch} f+{offset}; nop; ret"),
    )

    refused = (REFUSED, 0, Reason.BRANCH)
    assert found["f"] == (refused if offset < 6 else (PROLOGUE, 6, Reason.NONE))
    assert found["g"] == (PROLOGUE, 5, Reason.NONE)


@pytest.mark.parametrize("loop", ["jne f", "loop f", "jmp f"])
def test_a_loop_that_begins_at_the_first_byte_is_refused(tmp_path: Path, loop: str) -> None:
    # its rounds are no calls
    path = assemble(
        tmp_path, ".text" + function("f", f"push %rbx; mov %rdi,%rbx; nop; here: {loop}; ret")
    )
    found = analyse(ElfImage.open(path))

    entry, branch = (addresses(path)[name] for name in ("f", "here"))
    assert found.counts() == {Reason.LOOP: 1}
    assert found.blockers == {entry: branch}


def test_a_jump_of_another_function_to_the_first_byte_is_a_call(tmp_path: Path) -> None:
    found = judge_code(
        tmp_path, function("f", PLAIN), function("g", "mov $1,%eax; nop; je f; jmp f")
    )

    assert found["f"] == (PROLOGUE, 8, Reason.NONE)


def test_the_branch_that_is_in_the_way_is_named(tmp_path: Path) -> None:
    source = ".text" + function(
        "f", "push %rbx; 1: dec %edi; inc %eax; nop; here: jne 1b; pop %rbx; ret"
    )
    path = assemble(tmp_path, source)
    found = analyse(ElfImage.open(path))

    entry, branch = (addresses(path)[name] for name in ("f", "here"))
    assert found.blockers == {entry: branch}
    assert found.why_not(entry) == (f"a branch jumps between the bytes to replace (0x{branch:x})")


def test_a_branch_from_code_that_belongs_to_no_function_counts(tmp_path: Path) -> None:
    source = ".text" + function("f", PLAIN) + "\n.p2align 4\nnop\njmp f+1\n"

    assert judge(assemble(tmp_path, source))["f"] == (REFUSED, 0, Reason.BRANCH)


def test_a_branch_behind_data_in_the_same_function_counts(tmp_path: Path) -> None:
    # The data decodes as the first byte of a long instruction that swallows the branch behind it.
    body = PLAIN + "; 1: .byte 0x48,0xb8; 2: jmp f+1; nop; nop; nop; nop; nop; nop; nop; nop; ret"
    reached = function("f", "push %rbp; mov %rsp,%rbp; nop; jmp 2f;" + body.partition(";")[2])

    assert judge_code(tmp_path, reached)["f"] == (REFUSED, 0, Reason.BRANCH)


def test_bytes_that_only_look_like_a_branch_are_dismissed(tmp_path: Path) -> None:
    # mov $imm holds "jmp rel32" to f+1: no instruction starts there.
    source = """
.text
.globl f
.type f,@function
f: push %rbp; mov %rsp,%rbp; nop; ret
.size f,.-f
.type g,@function
g: mov $1,%ecx
.byte 0x48,0xb8
1: .byte 0xe9
.long f+1-1b-5
.byte 0,0,0
ret
.size g,.-g
"""
    assert judge(assemble(tmp_path, source))["f"] == (PROLOGUE, 5, Reason.NONE)


def test_the_same_bytes_in_code_that_does_not_decode_count(tmp_path: Path) -> None:
    source = """
.text
.globl f
.type f,@function
f: push %rbp; mov %rsp,%rbp; nop; ret
.size f,.-f
.type g,@function
g: mov $1,%ecx
.byte 0x06
.byte 0x48,0xb8
1: .byte 0xe9
.long f+1-1b-5
.byte 0,0,0
ret
.size g,.-g
"""
    assert judge(assemble(tmp_path, source))["f"] == (REFUSED, 0, Reason.BRANCH)


def test_a_jump_over_a_lock_prefix_does_not_confuse_the_decode(tmp_path: Path) -> None:
    # glibc's idiom; the instruction after the prefix is decoded too.
    body = (
        "push %rbx; mov %rdi,%rbx; nop; 2: nop; je 1f; lock; 1: cmpxchg %ecx,(%rbx); jne 2b;"
        "pop %rbx; ret"
    )

    assert judge_code(tmp_path, function("f", body))["f"] == (PROLOGUE, 5, Reason.NONE)


@pytest.mark.parametrize(
    "pointer",
    [
        ".data\n.quad f+1\n",
        '.section .data.rel.ro,"aw"\n.balign 8\n.quad f+3\n',
        ".text\n.type inner,@function\n.set inner, f+1\n.size inner, 2\n",
        ".text\n.set label, f+2\n",
    ],
)
def test_a_pointer_or_symbol_inside_the_window_is_found(tmp_path: Path, pointer: str) -> None:
    source = ".text" + function("f", PLAIN) + pointer

    assert judge(assemble(tmp_path, source))["f"] == (REFUSED, 0, Reason.POINTER)


def test_a_lea_of_an_address_inside_the_window_is_found(tmp_path: Path) -> None:
    found = judge_code(
        tmp_path, function("f", PLAIN), function("g", "mov $1,%eax; lea f+1(%rip),%rax; jmp *%rax")
    )

    assert found["f"] == (REFUSED, 0, Reason.BRANCH)


def test_a_packed_relocation_into_the_window_is_found(tmp_path: Path) -> None:
    source = ".text" + function("f", PLAIN) + "\n.data\n.balign 8\n.quad f+1\n.quad f+1\n"
    path = assemble(tmp_path, source, *SHARED, "-Wl,-z,pack-relative-relocs")

    assert judge(path)["f"] == (REFUSED, 0, Reason.POINTER)


FIXED = ("-nostdlib", "-static", "-no-pie")


@pytest.mark.parametrize(
    ("pointer", "kept"),
    [
        (".data\n.balign 8\n.quad f+1\n", False),
        (".section .rodata\n.balign 8\n.quad f+1\n", False),
        (".text" + function("g", "mov $f+1,%eax; jmp *%rax"), False),
        (".text" + function("g", "push $f+1; nop; nop; ret"), False),
        (".text" + function("g", "mov $1,%eax; movq $f+1,(%rdi); ret"), False),
        (".data\n.balign 8\n.quad f\n", True),
    ],
)
def test_an_absolute_address_in_a_fixed_program_is_found(
    tmp_path: Path, pointer: str, kept: bool
) -> None:
    start = function("_start", "mov $1,%eax; hlt")
    path = assemble(tmp_path, ".text" + start + function("f", PLAIN) + pointer, *FIXED)

    expected = (PROLOGUE, 8, Reason.NONE) if kept else (REFUSED, 0, Reason.POINTER)
    assert judge(path)["f"] == expected


def test_the_entry_point_is_refused(tmp_path: Path) -> None:
    path = assemble(tmp_path, ".text" + function("_start", PLAIN), *FIXED)

    assert judge(path)["_start"] == (REFUSED, 0, Reason.START)


def table_jump(extra: str) -> str:
    """gcc's dispatch of a switch; its table is .Ltable."""
    return (
        function(
            "f",
            """
    push %rbx
    mov %rdi,%rbx
    nop
    cmp $3,%edi
    ja .Lout
    lea .Ltable(%rip),%rdx
    movslq (%rdx,%rdi,4),%rax
    add %rdx,%rax
    notrack jmp *%rax
.La: mov $1,%eax
.Lb: inc %eax
.Lout: pop %rbx
    ret
""",
        )
        + f"""
.section .rodata
.balign 4
.Ltable: .long .La-.Ltable, .Lb-.Ltable, .Lout-.Ltable
{extra}
"""
    )


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (".long .La-.Ltable", (PROLOGUE, 5, Reason.NONE)),
        (".long f-.Ltable", (REFUSED, 0, Reason.LOOP)),
        (".long f+5-.Ltable", (PROLOGUE, 5, Reason.NONE)),
        (".long f+1-.Ltable", (REFUSED, 0, Reason.INDIRECT_JUMP)),
        (".long f+4-.Ltable", (REFUSED, 0, Reason.INDIRECT_JUMP)),
    ],
)
def test_a_jump_table_is_read_entry_by_entry(
    tmp_path: Path, extra: str, expected: tuple[SiteKind, int, Reason]
) -> None:
    assert judge(assemble(tmp_path, ".text" + table_jump(extra)))["f"] == expected


@pytest.mark.parametrize(
    ("jump", "reason"),
    [
        ("jmp *g@GOTPCREL(%rip)", Reason.NONE),
        ("mov (%rdi),%rax; jmp *0x18(%rax)", Reason.NONE),
        ("mov 8(%rdi),%rax; xor %esi,%esi; jmp *%rax", Reason.NONE),
        ("jmp *%rdi", Reason.NONE),
        ("mov %rsi,%rax; jmp *%rax", Reason.NONE),
        ("call g; jmp *%rax", Reason.NONE),
        ("pop %rdx; pop %rcx; jmp *%rdx", Reason.NONE),
        ("lea f(%rip),%rax; add %rdi,%rax; jmp *%rax", Reason.INDIRECT_JUMP),
        ("lea f(%rip),%rax; lea (%rax,%rdi,8),%rax; jmp *%rax", Reason.INDIRECT_JUMP),
        ("mov $0x11,%ecx; ror %cl,%rax; jmp *%rax", Reason.INDIRECT_JUMP),
        ("mov 8(%rdi),%rdx; ror $17,%rdx; xor %fs:0x30,%rdx; jmp *%rdx", Reason.NONE),
        ("mov 8(%rdi),%rdx; ror $17,%rdx; xor %fs:0x38,%rdx; jmp *%rdx", Reason.INDIRECT_JUMP),
        ("mov (%rdi),%eax; jmp *%rax", Reason.INDIRECT_JUMP),
        ("1: inc %rax; jne 1b; jmp *%rax", Reason.INDIRECT_JUMP),
        ("mov (%rdi),%rax; 1: dec %esi; jne 1b; jmp *%rax", Reason.NONE),
        ("mov (%rdi),%rax; 1: dec %rax; jne 1b; jmp *%rax", Reason.INDIRECT_JUMP),
        ("test %esi,%esi; je 1f; mov (%rdi),%rdx; 1: jmp *%rdx", Reason.NONE),
        ("test %esi,%esi; je 1f; lea 1(%rdx),%rdx; 1: jmp *%rdx", Reason.INDIRECT_JUMP),
        ("mov 8(%rdi),%r13; mov (%rdi),%rdx; cmove %rdx,%r13; jmp *%r13", Reason.NONE),
        ("mov 8(%rdi),%r13; mov (%rdi),%edx; cmove %rdx,%r13; jmp *%r13", Reason.INDIRECT_JUMP),
        ("mov (%rdi),%r13; call g; mov %r13,%rcx; jmp *%rcx", Reason.NONE),
        ("lea -8(%rdi),%r13; call g; mov %r13,%rcx; jmp *%rcx", Reason.INDIRECT_JUMP),
        ("call g; jmp *%rdx", Reason.NONE),
        ("1: sub %fs:0x28,%rax; jne 2f; ret; 2: call g; mov (%rdi),%rax; jmp *%rax", Reason.NONE),
        ("sub %fs:0x20,%rax; jmp *%rax", Reason.INDIRECT_JUMP),
        ("mov %rsi,%rax; jmp 1f; nopl (%rax); 1: jmp *%rax", Reason.NONE),
        ("mov %esi,%eax; jmp *%rax", Reason.INDIRECT_JUMP),
        ("xchg %rax,%rsi; jmp *%rax", Reason.INDIRECT_JUMP),
        ("rdtsc; jmp *%rdx", Reason.INDIRECT_JUMP),
        ("mov %rdi,-8(%rsp); jmp *-8(%rsp)", Reason.NONE),
        ("mov -8(%rbp),%rax; jmp *%rax", Reason.NONE),
        ("1: lea 1b(%rip),%rax; mov %rax,-8(%rbp); jmp *-8(%rbp)", Reason.INDIRECT_JUMP),
        ("1: lea 1b(%rip),%rax; push %rax; pop %rcx; jmp *%rcx", Reason.INDIRECT_JUMP),
        (
            "1: lea 1b(%rip),%rax; mov %rax,-8(%rbp); mov -8(%rbp),%rdx; jmp *%rdx",
            Reason.INDIRECT_JUMP,
        ),
        ("1: lea 1b(%rip),%rax; mov %rax,8(%rdi); jmp *16(%rdi)", Reason.NONE),
        ("mov (%rdi),%rax; xor %al,%al; jmp *%rax", Reason.INDIRECT_JUMP),
        ("xor %eax,%eax; test %esi,%esi; je 1f; mov (%rdi),%rax; 1: jmp *%rax", Reason.NONE),
        ("mov (%rdi),%rax; mov $3,%al; jmp *%rax", Reason.INDIRECT_JUMP),
        ("movslq (%rdx,%rdi,4),%rax; add %rcx,%rax; jmp *%rax", Reason.INDIRECT_JUMP),
        ("movslq (%rdx,%rdi,4),%rax; add %rdx,%rax; jmp *%rax", Reason.INDIRECT_JUMP),
    ],
)
def test_a_computed_jump_is_allowed_only_if_its_origin_is_known(
    tmp_path: Path, jump: str, reason: Reason
) -> None:
    found = judge_code(
        tmp_path,
        function("f", f"push %rbx; mov %rdi,%rbx; nop; {jump}"),
        function("g", PLAIN),
    )

    assert found["f"][2] == reason
    assert found["g"] == (PROLOGUE, 8, Reason.NONE)


def far_table_jump(entries: str, *, dispatch: str) -> str:
    """A switch in a loop: what it needs was made far from the jump, which is reached three ways."""
    body = f"""
    push %rbx
    mov %rdi,%rbx
    nop
    lea .Ltable(%rip),%rcx
    {"lea .La(%rip),%rsi" if "%rsi" in dispatch else ""}
    jmp .Lloop
.La: inc %eax
.Lb: inc %eax
    call g@PLT
.Lloop: mov (%rbx),%edi
    cmp $3,%edi
    ja .Lout
{dispatch}
.Lout: pop %rbx
    ret
"""
    table = f".section .rodata\n.balign 4\n.Ltable: {entries}\n.Lend: .long 0\n"
    other = ".text\n" + function("g", "lea .Lend(%rip),%rax; ret")
    return function("f", body) + table + other


OWN_BASE = "movslq (%rcx,%rdi,4),%rax; add %rcx,%rax; jmp *%rax"
SAVED_BASE = "mov 8(%rsp),%rdx; movslq (%rdx,%rdi,4),%rax; add %rdx,%rax; jmp *%rax"
CODE_BASE = "movslq (%rcx,%rdi,4),%rax; add %rsi,%rax; notrack jmp *%rax"
LEA_SUM = "movslq (%rcx,%rdi,4),%rdx; lea (%rcx,%rdx),%rdx; jmp *%rdx"
FIRST_ONLY = "movslq .Ltable(%rip),%rax; lea .Ltable(%rip),%rdx; add %rdx,%rax; jmp *%rax"
OTHER_SCALE = "movslq (%rcx,%rdi,8),%rax; add %rcx,%rax; jmp *%rax"
UNSIGNED = "movzwl (%rcx,%rdi,2),%eax; add %rcx,%rax; jmp *%rax"
BELOW = "sub $4,%rdi; movslq 16(%rcx,%rdi,4),%rax; add %rcx,%rax; jmp *%rax"
ABOVE = "add $2,%rdi; movslq -8(%rcx,%rdi,4),%rax; add %rcx,%rax; jmp *%rax"
HALF = "movslq (%rcx,%rdi,4),%rax; lea (%rcx,%rax),%eax; jmp *%rax"
SPILLED = "movslq (%rcx,%rdi,4),%rax; add %rcx,%rax; mov %rax,-8(%rsp); jmp *-8(%rsp)"
PUSHED = "movslq (%rcx,%rdi,4),%rax; add %rcx,%rax; push %rax; pop %rdx; jmp *%rdx"
TWICE = "movslq (%rcx,%rdi,4),%rax; add %rcx,%rax; add %rdi,%rax; jmp *%rax"


@pytest.mark.parametrize(
    ("dispatch", "base", "known"),
    [
        (OWN_BASE, ".Ltable", True),
        (SAVED_BASE, ".Ltable", True),
        (CODE_BASE, ".La", True),
        (LEA_SUM, ".Ltable", True),
        (FIRST_ONLY, ".Ltable", True),
        (SPILLED, ".Ltable", True),
        (PUSHED, ".Ltable", True),
        (BELOW, ".Ltable", True),
        (ABOVE, ".Ltable", True),
        (HALF, ".Ltable", False),
        (OTHER_SCALE, ".Ltable", False),
        (UNSIGNED, ".Ltable", False),
        (TWICE, ".Ltable", False),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_table_is_found_wherever_its_address_was_made(
    tmp_path: Path, dispatch: str, base: str, known: bool, inside: bool
) -> None:
    entries = f".long .La-{base}, .Lb-{base}, {'f+1' if inside else '.Lout'}-{base}"
    path = assemble(tmp_path, ".text" + far_table_jump(entries, dispatch=dispatch))

    expected = (PROLOGUE, 5, Reason.NONE)
    assert judge(path)["f"] == (
        expected if known and not inside else (REFUSED, 0, Reason.INDIRECT_JUMP)
    )


COMPUTED_GOTO = """
int run(const unsigned char *code, int x) {
    static void *const labels[] = {&&inc, &&dec, &&twice, &&out};
    goto *labels[*code++];
inc: x++; goto *labels[*code++];
dec: x--; goto *labels[*code++];
twice: x *= 2; goto *labels[*code++];
out: return x;
}
int main(int argc, char **argv) { return run((const unsigned char *)argv[0], argc); }
"""


@pytest.mark.parametrize("pie", [("-fPIE", "-pie"), ("-fno-pie", "-no-pie")])
def test_a_computed_goto_over_stored_labels_is_traceable(
    tmp_path: Path, pie: tuple[str, str]
) -> None:
    found = judge(compile_c(tmp_path, COMPUTED_GOTO, "-O2", *pie))

    assert found["run"][2] in (Reason.NONE, Reason.RIP_RELATIVE)


def test_a_stored_label_inside_the_window_refuses_the_function(tmp_path: Path) -> None:
    body = "push %rbx; 1: mov %rdi,%rbx; nop; jmp *labels(,%rdi,8)"
    source = ".text" + function("_start", PLAIN) + function("f", body.replace("1:", "inner:"))
    path = assemble(tmp_path, source + ".data\n.balign 8\nlabels: .quad inner, f\n", *FIXED)
    subprocess.run(["strip", "--strip-symbol=inner", str(path)], check=True)

    assert judge(path)["f"] == (REFUSED, 0, Reason.POINTER)


def test_a_function_that_ends_before_five_bytes_is_never_written_over_its_neighbour(
    tmp_path: Path,
) -> None:
    source = """
.text
.globl f
.type f,@function
f: xor %eax,%eax; inc %eax
.size f,.-f
.globl g
.type g,@function
g: push %rbx; mov %rdi,%rbx; nop; ret
.size g,.-g
"""
    found = judge(assemble(tmp_path, source))

    assert found == {"f": (REFUSED, 0, Reason.TOO_SHORT), "g": (PROLOGUE, 5, Reason.NONE)}


def test_a_function_that_ends_with_its_window_is_traceable(tmp_path: Path) -> None:
    found = judge_code(tmp_path, function("f", "mov $1,%eax", size="5"), function("g", PLAIN))

    assert found["f"] == (PROLOGUE, 5, Reason.NONE)


def test_a_window_longer_than_the_function_is_refused(tmp_path: Path) -> None:
    found = judge_code(tmp_path, function("f", "push %rbp; mov %rsp,%rbp; sub $8,%rsp", size="6"))

    assert found["f"] == (REFUSED, 0, Reason.TOO_SHORT)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (5, (PROLOGUE, 8, Reason.NONE)),
        (4, (REFUSED, 0, Reason.PAGE)),
        (1, (REFUSED, 0, Reason.PAGE)),
    ],
)
def test_five_bytes_in_two_pages_are_refused(
    tmp_path: Path, room: int, expected: tuple[SiteKind, int, Reason]
) -> None:
    source = f"""
.text
.p2align 12
.skip 4096-{room}, 0x90
.type f,@function
f: {PLAIN}
.size f,.-f
"""
    assert judge(assemble(tmp_path, source))["f"] == expected


def test_a_symbol_without_size_needs_a_nop_site_or_a_frame(tmp_path: Path) -> None:
    source = f"""
.text
.type plain,@function
plain: {PLAIN}
.p2align 4
.type nops,@function
nops: nop; nop; nop; nop; nop; ret
.p2align 4
.type framed,@function
framed: .cfi_startproc
{PLAIN}
.cfi_endproc
"""
    assert judge(assemble(tmp_path, source)) == {
        "plain": (REFUSED, 0, Reason.SIZE_UNKNOWN),
        "nops": (NOP, 5, Reason.NONE),
        "framed": (PROLOGUE, 8, Reason.NONE),
    }


def test_parts_of_functions_are_known_by_name(tmp_path: Path) -> None:
    # f.part.0 is a function that gcc has made of the rest of an inlined one: calls enter it.
    names = ("f", "f.cold", "f.part.0", "f.cold.3", "f.part.2.constprop.1")
    path = assemble(tmp_path, ".text\n" + "".join(function(name, PLAIN) for name in names))
    sites = analyse(ElfImage.open(path)).sites
    at = addresses(path)
    parts = {name for name in names if sites["part"][sites["entry"] == at[name]].item()}

    assert parts == {"f.cold", "f.cold.3"}
    assert set(sites["kind"].tolist()) == {PROLOGUE}


def test_other_suffixes_of_the_compiler_are_functions(tmp_path: Path) -> None:
    names = ("f.constprop.0", "f.isra.0", "f.coldest", "f.lto_priv.0")
    found = judge_code(tmp_path, *(function(n, PLAIN) for n in names if n != "f.coldest"))

    assert {kind for kind, _, _ in found.values()} == {PROLOGUE}


COLD = """
#include <cstdio>
#include <string>
__attribute__((noinline)) int work(int n) {
    std::string text(n, 'x'), more = text + "yes";
    if (n > 5) throw std::string("too many");
    std::puts(more.c_str());
    return n;
}
int main(int argc, char **) { try { return work(argc); } catch (std::string &) { return 9; } }
"""


def test_the_cold_part_of_a_stripped_function_is_known_by_its_frame(tmp_path: Path) -> None:
    path = compile_cpp(tmp_path, COLD, "-O2")
    cold = addresses(path)["_Z4worki.cold"]
    subprocess.run(["strip", str(path)], check=True)

    image = ElfImage.open(path)
    found = analyse(image)
    row = found.sites[found.sites["entry"] == cold]
    assert row["part"].item()


def test_an_ifunc_resolver_is_a_function_of_its_own_name(tmp_path: Path) -> None:
    source = """
__attribute__((noinline)) static int one(int x) { return x * 3 + 1; }
static int (*choose(void))(int) { return one; }
int chosen(int) __attribute__((ifunc("choose")));
int main(int argc, char **argv) { return chosen(argc) + one(argc); }
"""
    found = judge(compile_c(tmp_path, source, "-O0"))

    assert "chosen" not in found
    assert found["choose"][2] == found["one"][2] == Reason.NONE


C_PROGRAM = """
#include <stdlib.h>
static int compare(const void *a, const void *b) { return *(int *)a - *(int *)b; }
__attribute__((noinline)) int pick(int x, int *y) {
    switch (x) {
    case 0: return y[0] * 3; case 1: return rand(); case 2: y[1]++; return rand() + 1;
    case 3: abort(); case 4: return y[5] / 7; case 5: y[3] = rand(); return 5; case 6: return 9;
    }
    return x;
}
__attribute__((noinline)) double mean(double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return sum / n;
}
int main(int argc, char **argv) {
    int x[9] = {argc}; double d[3] = {argc};
    qsort(x, 9, sizeof x[0], compare);
    return pick(argc, x) + (int)mean(d, 3);
}
"""
OWN = ("compare", "pick", "mean", "main")


@pytest.mark.parametrize("protection", ["none", "full"])
@pytest.mark.parametrize(
    "flags",
    [
        ("-fpatchable-function-entry=5",),
        ("-fpatchable-function-entry=8,3",),
        ("-pg", "-mfentry", "-mnop-mcount", "-fno-pie", "-no-pie"),
    ],
)
@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os"])
def test_functions_compiled_for_patching_have_nop_sites(
    tmp_path: Path, level: str, flags: tuple[str, ...], protection: str
) -> None:
    path = compile_c(tmp_path, C_PROGRAM, level, f"-fcf-protection={protection}", *flags)
    found = judge(path)

    assert {name: found[name] for name in OWN} == {name: (NOP, 5, Reason.NONE) for name in OWN}


@pytest.mark.parametrize(
    "options",
    [
        *(f"{level} -fPIE -pie" for level in ("-O0", "-O1", "-O2", "-O3", "-Os")),
        *(f"{level} -fno-pie -no-pie" for level in ("-O0", "-O1", "-O2", "-O3", "-Os")),
        *(f"{level} -static" for level in ("-O0", "-O3")),  # with all of libc
    ],
)
def test_ordinary_functions_are_traceable_or_refused_for_what_they_contain(
    tmp_path: Path, options: str
) -> None:
    level, *pie = options.split()
    found = judge(compile_c(tmp_path, C_PROGRAM, level, *pie))

    allowed = {Reason.NONE, Reason.CONTROL_FLOW, Reason.RIP_RELATIVE, Reason.TOO_SHORT}
    assert {found[name][2] for name in OWN} <= allowed
    if level == "-O0":
        assert {found[name][0] for name in OWN} == {PROLOGUE}


def test_aliases_share_one_row(tmp_path: Path) -> None:
    source = ".text" + function("f", PLAIN) + ".globl g\n.type g,@function\n.set g, f\n.size g, 9\n"

    assert list(judge(assemble(tmp_path, source))) == ["f"]


def test_a_virtual_tail_call_does_not_refuse_a_method(tmp_path: Path) -> None:
    source = """
struct A { virtual int f(int) = 0; virtual int g(int) = 0; };
int call(A *a, int x, int y) { return a->g(x * 3 + y + 12345); }
struct B : A { int f(int x) override { return x; } int g(int x) override { return x + 1; } };
struct C : A { int f(int x) override { return 3 * x; } int g(int x) override { return x + 2; } };
int main(int c, char **) {
    B b; C d;
    A *volatile a = c > 1 ? (A *)&b : &d;
    return call(a, c, c);
}
"""
    found = judge(compile_cpp(tmp_path, source, "-O2", "-fno-inline"))

    assert found["_Z4callP1Aii"][0] == PROLOGUE


def test_text_for_people_exists_for_every_reason() -> None:
    assert Reason.NONE.text == ""
    assert all(reason.text and "\n" not in reason.text for reason in Reason if reason)


def test_why_not_names_an_address_without_a_function() -> None:
    with pytest.raises(KeyError):
        ModuleSites(np.zeros(0, np.dtype([("entry", "<u8")])), {}).why_not(5)
