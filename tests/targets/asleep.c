// build: gcc -O2 -fcf-protection=none asleep.c
// Sleeps in a function that was called by the second instruction of another: "in" goes there and
// answers with the return addresses on the stack, "out" comes back.
#include <execinfo.h>
#include <stdio.h>
#include <string.h>

asm(".p2align 4\n.globl f_outer\n.type f_outer, @function\n"
    "f_outer: .cfi_startproc\n push %rbx\n .cfi_adjust_cfa_offset 8\n call f_inner\n"
    "pop %rbx\n .cfi_adjust_cfa_offset -8\n ret\n.cfi_endproc\n.size f_outer, . - f_outer");
long f_outer(long x);

__attribute__((noipa, used)) long f_inner(long x)
{
    char line[64];
    void *frames[16];
    int n = backtrace(frames, 16);
    for (int i = 1; i < n; i++) /* all but where we are */
        printf("%p ", frames[i]);
    puts("in");
    fgets(line, sizeof line, stdin);
    return strcmp(line, "out\n") ? -1 : x * 3 + 1;
}

int main(void)
{
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin))
        printf("%ld out\n", f_outer(5));
    return 0;
}
