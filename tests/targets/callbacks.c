// build: gcc -O2 -fcf-protection=none -pthread callbacks.c
// Threads call functions with integers, doubles and 32-byte vectors, with their own MXCSR, x87
// control word and x87 stack, and compare every result with what it must be. threads=2
// Counts: f_int and the like = calls; original.* and changed.* = which result f_victim and
// f_argument gave.
#include "bed.h"
#include <immintrin.h>

#define FUNCTION __attribute__((noipa))
#define WIDE __attribute__((target("avx")))

FUNCTION long f_int(long a, long b, long c, long d, long e, long f, long g)
{
    return a + 3 * b + 5 * c + 7 * d + 11 * e + 13 * f + 17 * g;
}
FUNCTION double f_double(double a, double b, long c) { return a * b + c; }
FUNCTION WIDE __m256d f_wide(__m256d a, __m256d b) { return _mm256_add_pd(a, b); }
FUNCTION long f_victim(long x) { return x + 1; }
FUNCTION long f_replacement(long x) { return x + 1000; }
FUNCTION long f_argument(long x) { return 2 * x + 1; }
FUNCTION long f_again(long x) { return x - 5; }
__attribute__((naked, noinline, used)) void f_x87(void) { asm("nop; nop; nop; nop; nop; ret"); }

/* pi on the x87 stack while f_x87 is called, and mm0 is not empty then. */
static long double kept_on_x87(void)
{
    long double kept;
    asm volatile("fldpi; call f_x87; fstpt %0" : "=m"(kept)::"memory");
    return kept;
}

static WIDE void check_wide(long i)
{
    double out[4];
    __m256d sum = f_wide(_mm256_set_pd(1, 2, 3, 4 + i), _mm256_set_pd(10, 20, 30, 40));
    _mm256_storeu_pd(out, sum);
    if (out[0] != 44 + i || out[1] != 33 || out[2] != 22 || out[3] != 11)
        bed_bad("f_wide", out[0], 44 + i);
}

static void *work(void *unused)
{
    volatile uint64_t *ints = bed_counter("f_int"), *doubles = bed_counter("f_double");
    volatile uint64_t *wides = bed_counter("f_wide"), *olds = bed_counter("f_x87");
    volatile uint64_t *again = bed_counter("f_again"), *calls = bed_counter("f_victim");
    volatile uint64_t *original = bed_counter("original.f_victim");
    volatile uint64_t *changed = bed_counter("changed.f_victim");
    volatile uint64_t *doubled = bed_counter("original.f_argument");
    volatile uint64_t *other = bed_counter("changed.f_argument");
    int has_avx = !!__builtin_cpu_supports("avx");
    uint16_t control = 0x107f, found; /* single precision, all exceptions masked */
    uint32_t rounding = 0x7f80;       /* towards zero; all exceptions masked */
    asm volatile("fldcw %0" ::"m"(control));
    _mm_setcsr(rounding);
    while (bed_running())
        for (long i = 0; i < 100; i++) {
            if (f_int(i, 2, 3, 4, 5, 6, 7) != i + 6 + 15 + 28 + 55 + 78 + 119)
                bed_bad("f_int", i, 0);
            ++*ints;
            if (f_double(2.5, i, 3) != 2.5 * i + 3)
                bed_bad("f_double", i, 0);
            ++*doubles;
            if (has_avx)
                check_wide(i);
            *wides += has_avx;
            if (kept_on_x87() != 3.14159265358979323851L)
                bed_bad("f_x87", i, 0);
            ++*olds;
            if (f_again(i) != i - 5)
                bed_bad("f_again", i, 0);
            ++*again;
            long got = f_victim(i);
            if (got != i + 1 && got != i + 1000)
                bed_bad("f_victim", got, i);
            ++*(got == i + 1 ? original : changed);
            ++*calls;
            got = f_argument(i);
            if (got != 2 * i + 1 && got != 2 * (i + 100000) + 1)
                bed_bad("f_argument", got, i);
            ++*(got == 2 * i + 1 ? doubled : other);
            asm volatile("fnstcw %0" : "=m"(found));
            if (found != control)
                bed_bad("x87 control word", found, control);
            if ((_mm_getcsr() & ~0x3fu) != rounding)
                bed_bad("MXCSR", _mm_getcsr(), rounding);
        }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    bed_open(argc, argv);
    long n = bed_number("threads", 2);
    for (long i = 0; i < n; i++)
        bed_enter();
    bed_threads(threads, n, work);
    if (f_replacement(1) != 1001)
        bed_bad("f_replacement", 0, 0);
    bed_ready();
    bed_await_stop();
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
