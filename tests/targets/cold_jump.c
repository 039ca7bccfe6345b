// build: gcc -O2 -fcf-protection=none -pthread cold_jump.c
// f_switch goes by a jump table to f_switch.cold, a part of it in another section with unwind
// information of its own. The part reads the red zone below the stack pointer, which a call
// there would write over.
#include "bed.h"

long f_switch(long way, long x);
__asm__(".text\n"
        ".globl f_switch\n"
        ".type f_switch, @function\n"
        "f_switch: .cfi_startproc\n"
        "    mov %rsi, -8(%rsp)\n"
        "    mov %rsi, -16(%rsp)\n"
        "    mov %rsi, -24(%rsp)\n"
        "    cmp $3, %rdi\n"
        "    ja 9f\n"
        "    lea .Ltable(%rip), %rdx\n"
        "    movslq (%rdx,%rdi,4), %rax\n"
        "    add %rdx, %rax\n"
        "    jmp *%rax\n"
        ".Lfirst: mov -8(%rsp), %rax\n"
        "    ret\n"
        ".Lsecond: mov -16(%rsp), %rax\n"
        "    ret\n"
        "9:  xor %eax, %eax\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size f_switch, .-f_switch\n"
        ".section .text.unlikely, \"ax\", @progbits\n"
        ".p2align 4\n"
        "f_switch.cold: .cfi_startproc\n"
        "    imul $7, -8(%rsp), %rax\n"
        "    add -16(%rsp), %rax\n"
        "    add -24(%rsp), %rax\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size f_switch.cold, .-f_switch.cold\n"
        ".section .rodata\n"
        ".p2align 2\n"
        ".Ltable: .long .Lfirst - .Ltable, .Lsecond - .Ltable, f_switch.cold - .Ltable,"
        " .Lfirst - .Ltable\n"
        ".text\n");

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    bed_enter();
    volatile uint64_t *calls = bed_counter("f_switch");
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    bed_ready();
    for (long x = 0; bed_running(); x++) {
        long found = f_switch(2, x);
        if (found != x * 9)
            bed_bad("f_switch", found, x * 9);
        ++*calls;
        bed_nap_us(100);
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    return bed_end();
}
