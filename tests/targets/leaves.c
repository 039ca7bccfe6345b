// The functions of hot: each leaves every register and flag as it was, whatever its prologue.
#include "check.h"

#define NAKED __attribute__((naked, noinline, noclone, used))
#define NOP5 ".byte 0x0f, 0x1f, 0x44, 0, 0; " /* as would choose the form of four bytes */
#define FRAME "push %rbp; mov %rsp, %rbp; "

uint64_t leaf_word = 1;

NAKED void f_plain(void) { asm(FRAME "pop %rbp; ret"); }         /* 5 bytes, then ret */
NAKED void f_frame(void) { asm(FRAME "lea -32(%rsp), %rsp; leave; ret"); }
NAKED void f_pushes(void) { asm("push %r15; push %r14; push %r13; pop %r13; pop %r14; pop %r15; ret"); }
NAKED void f_endbr(void) { asm("endbr64; " FRAME "pop %rbp; ret"); }
NAKED void f_rip(void) { asm("push %rax; mov leaf_word(%rip), %rax; pop %rax; ret"); }
NAKED void f_lea(void) { asm("lea -8(%rsp), %rsp; lea 8(%rsp), %rsp; ret"); }
NAKED void f_nop5(void) { asm(NOP5 "ret"); }
NAKED void f_endbr_nop5(void) { asm("endbr64; " NOP5 "ret"); }
NAKED void f_tail(void) { asm(FRAME "pop %rbp; jmp f_target"); } /* a tail jump to another */
NAKED void f_target(void) { asm(FRAME "pop %rbp; ret"); }

/* The compiler's own NOPs: five single bytes, and seven of which two lie before the entry. */
NAKED __attribute__((patchable_function_entry(5))) void f_patchable(void) { asm("ret"); }
NAKED __attribute__((patchable_function_entry(7, 2))) void f_padded(void) { asm("ret"); }

/* With a branch, call or return in the window. */
NAKED void f_short(void) { asm("nop; ret"); }
NAKED void f_jump_first(void) { asm("jmp 1f; .byte 0x0f, 0x0b, 0x0f, 0x0b; 1: ret"); }
NAKED void f_loop_into(void)
{   /* a branch comes back to its third byte: the window is entered from inside */
    asm("push %rcx; push %rcx; 1: nop; mov $0, %ecx; jrcxz 2f; jmp 1b; 2: pop %rcx; pop %rcx; ret");
}

NAKED void f_loop_at_one(void)
{   /* the same, to its second byte: to be refused */
    asm("push %rcx; 1: nop; mov $0, %ecx; jrcxz 2f; jmp 1b; 2: pop %rcx; ret");
}

/* Entered at its fourth byte by another, as memcpy is: short, with its long jump in the padding. */
NAKED void f_around(void)
{
    asm("mov %rbx, %rbx; .Linside: mov %rcx, %rcx; mov %rdx, %rdx; ret");
}
NAKED void f_inside(void) { asm("mov %rsi, %rsi; mov %rdi, %rdi; jmp .Linside"); }

/* Two functions shorter than a jump with code before and behind them and no padding in reach: their
 * long jumps lie in the middle of f_carrier. */
#define MOVES "mov %rcx, %rcx; mov %rdx, %rdx; cmove %rsi, %rsi; mov %rdi, %rdi; "
#define FUNCTION(name, body) ".globl " name "; .type " name ", @function; " name ": .cfi_startproc; " \
    body "; .cfi_endproc; .size " name ", . - " name "; "
asm(".pushsection .text.packed, \"ax\"; .balign 4096; .fill 512, 1, 0; "
    FUNCTION("f_carrier", MOVES MOVES MOVES MOVES MOVES MOVES "ret")
    FUNCTION("f_tiny", "mov %rdi, %rdi; ret") FUNCTION("f_hop", "jmp f_carrier + 13")
    ".fill 512, 1, 0; .popsection");
void f_carrier(void), f_tiny(void), f_hop(void);

/* Fills its red zone and looks at it again and again while it may be stopped. */
NAKED void f_redzone(void)
{
    asm("push %rax; push %rcx; pushfq; lea -120(%rsp), %rcx; 1: mov %rcx, (%rcx); "
        "lea 8(%rcx), %rcx; cmp %rsp, %rcx; jne 1b; mov $40, %eax; "
        "2: lea -120(%rsp), %rcx; 3: cmp %rcx, (%rcx); jne 4f; lea 8(%rcx), %rcx; "
        "cmp %rsp, %rcx; jne 3b; dec %eax; jne 2b; popfq; pop %rcx; pop %rax; ret; "
        "4: ud2");
}

#define ENTRY(name) {#name, name, 0}
const struct hot_entry hot_table[] = {
    ENTRY(f_plain), ENTRY(f_frame), ENTRY(f_pushes), ENTRY(f_endbr),
    ENTRY(f_rip), ENTRY(f_lea), ENTRY(f_nop5), ENTRY(f_endbr_nop5),
    {"f_tail", f_tail, "f_target"}, ENTRY(f_patchable), ENTRY(f_padded), ENTRY(f_short),
    ENTRY(f_redzone), ENTRY(f_jump_first), ENTRY(f_loop_into), ENTRY(f_around), ENTRY(f_inside),
    ENTRY(f_loop_at_one), ENTRY(f_carrier), ENTRY(f_tiny), ENTRY(f_hop), {0, 0, 0},
};
