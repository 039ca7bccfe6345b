// build: gcc -O2 -fcf-protection=none -freorder-functions -freorder-blocks-and-partition pieces.c
// Functions that gcc takes to pieces: a part behind an early return, clones with fewer or constant
// parameters, cold halves. Answers each line of standard input by calls.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOW __attribute__((noinline))
static int table[64];
static volatile int one = 1;

__attribute__((cold, noinline)) static int complain(const char *what, int x)
{
    return (int)strlen(what) * x;
}

/* One of its two parameters is never used: .isra; called with one constant only: .constprop. */
static SLOW int f_unused(int *x, __attribute__((unused)) int more) { return *x * 3 + table[*x & 63]; }
static SLOW int f_constant(int x, int factor)
{
    int sum = 0;
    for (int i = 0; i < x; i++)
        sum += table[(i * factor) & 63] ^ factor;
    return sum;
}

/* Its first test is made by the callers: .part. */
static int f_early(int *x)
{
    if (!*x)
        return 0;
    for (int i = 0; i < 50; i++) {
        table[(i + *x) & 63] += i;
        table[(i * *x) & 63] ^= rand() & one;
        if (table[i] > 1000000)
            return complain("large", i) + complain("very", *x);
    }
    return table[*x & 63];
}

/* What is unlikely is far away: .cold, entered by a jump and left by one. */
SLOW int f_split(int x)
{
    if (__builtin_expect(x % 10 == 9, 0))
        table[x & 63] += complain("nine", x) + complain("and again", x * 2);
    return x * 7 + table[x & 63];
}

int main(void)
{
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin)) {
        unsigned sum = 0;
        srand(1);
        memset(table, 0, sizeof table);
        for (int i = 0; i < 100; i++) {
            int copy = i;
            sum += f_split(i) + f_unused(&copy, 3) + f_constant(i, 17);
            sum += f_early(&copy) * 3;
            sum += f_early(&copy) ^ 5;
        }
        printf("%u\n", sum);
    }
    return 0;
}
