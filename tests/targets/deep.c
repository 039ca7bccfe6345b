// build: gcc -O2 -fcf-protection=none -fno-optimize-sibling-calls -pthread deep.c
// Recursion depth=1000 deep (f_deep), a chain of 12 (f_chain_1 .. f_chain_12), and each 8th time a
// longjmp out of the depth (f_jumper). Sums tell whether each level returned to the right place.
#include "bed.h"
#include <setjmp.h>

static jmp_buf back;

__attribute__((noipa)) long f_deep(long n) { return n ? f_deep(n - 1) * 3 + n : 1; }
__attribute__((noipa)) long f_jumper(long n)
{
    if (!n)
        longjmp(back, 7);
    return f_jumper(n - 1) + 1;
}
__attribute__((noipa)) long f_chain_12(long x) { return x + 12; }
#define LINK(n, m) \
    __attribute__((noipa)) long f_chain_##n(long x) { return f_chain_##m(x * 3) + n; }
LINK(11, 12) LINK(10, 11) LINK(9, 10) LINK(8, 9) LINK(7, 8) LINK(6, 7) LINK(5, 6) LINK(4, 5)
LINK(3, 4) LINK(2, 3) LINK(1, 2)

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    bed_enter();
    volatile uint64_t *deep = bed_counter("f_deep"), *jumper = bed_counter("f_jumper");
    volatile uint64_t *chains = bed_counter("f_chain_1"), *longjmps = bed_counter("longjmps");
    long depth = bed_number("depth", 1000), expected = 1, naps = bed_number("pause_us", 0);
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    for (long n = 1; n <= depth; n++)
        expected = (long)((unsigned long)expected * 3 + n);
    bed_ready();
    for (volatile long round = 0; bed_running(); ++round) {
        if (f_deep(depth) != expected)
            bed_bad("f_deep", round, 0);
        *deep += depth + 1;
        long sum = f_chain_1(1);
        if (sum != 177147 + 78) /* 3^11 + 1 + 2 + .. + 12 */
            bed_bad("f_chain", sum, 177147 + 78);
        ++*chains;
        if (round % 8 == 0 && !setjmp(back))
            bed_bad("no longjmp", f_jumper(100), 0);
        else if (round % 8 == 0)
            *jumper += 101, ++*longjmps;
        bed_nap_us(naps);
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    return bed_end();
}
