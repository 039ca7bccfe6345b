// build: gcc -O2 -fcf-protection=none hugetext.c
// Moves its own code to huge pages, as HHVM, node and others do: p the whole huge pages of its code
// segment, w all of it (both become anonymous memory), f none, but it runs itself from a memfd whose
// pages the kernel collapses. Answers each line of standard input by calls.
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE = 2 << 20, COLLAPSE = 25 /* MADV_COLLAPSE, Linux 6.1 */ };

__attribute__((noipa)) long f_low(long x) { return x * 3 + 1; }
/* In the middle of the segment, wherever it is loaded: in one of its whole huge pages. */
asm(".text\n.fill 0x280000, 1, 0xcc\n.p2align 4\n.globl f_middle\n.type f_middle, @function\n"
    "f_middle: lea 7(%rdi,%rdi,4), %rax\n ret\n.size f_middle, . - f_middle\n"
    ".fill 0x280000, 1, 0xcc");
long f_middle(long x);

static void run_from_memfd(char **argv)
{
    static char content[1 << 16];
    int from = open("/proc/self/exe", O_RDONLY), to = memfd_create("hugetext", MFD_CLOEXEC);
    long count;
    while ((count = read(from, content, sizeof content)) > 0)
        if (write(to, content, count) != count)
            exit(3);
    fexecve(to, (char *[]){argv[0], "c", NULL}, environ);
    exit(3);
}

int main(int argc, char **argv)
{
    char line[256], perms[5];
    char how = argc > 1 ? argv[1][0] : 'n';
    uintptr_t start = 0, end = 0, from, to;
    if (how == 'f')
        run_from_memfd(argv);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &from, &to, perms) == 3 &&
            from <= (uintptr_t)main && (uintptr_t)main < to)
            start = from, end = to;
    if (how != 'w')
        start = (start + HUGE - 1) & -HUGE, end &= -HUGE;
    if (how == 'p' || how == 'w') {
        void *copy = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0);
        memcpy(copy, (void *)start, end - start);
        mprotect(copy, end - start, PROT_READ | PROT_EXEC);
        if (mremap(copy, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED, start) ==
            MAP_FAILED)
            return 2;
    }
    if (how != 'n') /* what is not whole, or not possible here, stays as it is */
        for (uintptr_t at = (start + HUGE - 1) & -HUGE; at + HUGE <= end; at += HUGE)
            madvise((void *)at, HUGE, COLLAPSE);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin))
        printf("%ld %ld\n", f_low(5), f_middle(5));
    return 0;
}
