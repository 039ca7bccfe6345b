// build: gcc -O2 -fcf-protection=none turns.c
// Calls f_first and f_second in turn, 5000 times each, on CPU 0.
#define _GNU_SOURCE
#include <sched.h>

__attribute__((noipa)) long f_first(long x) { return x * 5 + x / 3; }
__attribute__((noipa)) long f_second(long x) { return x * 7 + x / 5; }

int main(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    sched_setaffinity(0, sizeof set, &set);
    for (long i = 0; i < 5000; i++)
        if (f_first(i) + f_second(i) != i * 12 + i / 3 + i / 5)
            return 1;
    return 0;
}
