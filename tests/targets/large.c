// build: gcc -O2 -fcf-protection=none -fno-toplevel-reorder -mcmodel=medium -mlarge-data-threshold=1500000000 large.c
// Has 3.75 GiB of data, so that nothing is within reach of all of it, and the low halves of nearly all
// addresses are those of an address in it. Answers each line of standard input by calls: f_near refers
// to data near the code, f_far to data behind 1.3 GiB, as far as an instruction can.
#include <stdio.h>
#include <unistd.h>

static long near = 7;
char __wrap__end[8] = {1};  // with -Wl,--wrap=_end, for a static C library that refers to it from nearby
static char between[1300L << 20];
static long far;
char large[0xf0000000 - sizeof between];

__attribute__((noipa)) long f_large(long x) { return x * 3 + 1 + large[x << 28]; }
__attribute__((noipa)) long f_near(long x) { return near * x; }
__attribute__((noipa)) long f_far(long x) { return far * x; }

int main(void)
{
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin)) {
        far += between[(int)line[0]] + 2;
        near += large[(int)line[0]];
        printf("%ld %ld %ld %d\n", f_large(5), f_near(5), f_far(5), getppid() > 0);
    }
    return 0;
}
