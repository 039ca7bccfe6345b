// build: gcc -O2 -fcf-protection=none -mcmodel=medium large.c
// Has 3.75 GiB of data, so that nothing is within reach of all of it, and the low halves of nearly all
// addresses are those of an address in it. Answers each line of standard input by a call.
#include <stdio.h>
#include <unistd.h>

char large[0xf0000000];

__attribute__((noipa)) long f_large(long x) { return x * 3 + 1 + large[x << 28]; }

int main(void)
{
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin))
        printf("%ld %d\n", f_large(5), getppid() > 0);
    return 0;
}
