// build: gcc -O2 -fcf-protection=none -fipa-ra -pthread conventions.c -lm
// Calls in every way that the compiler has, each result checked in each of the rounds: variadic
// with doubles, by the static chain, structures by value and by hidden pointer, more arguments
// than registers, long double and vectors, foreign conventions, a rounding mode and MXCSR that
// hold across calls, a stack off its alignment, one with left=48 bytes before its guard page, a
// handler on the smallest alternate stack and room=512 bytes. wide=1: also 512 bits and masks. threads=2
#include "bed.h"
#include <fenv.h>
#include <immintrin.h>
#include <math.h>
#include <stdarg.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#define TRACED __attribute__((noipa))

struct small { long a, b; };
struct mixed { double x; long n; };
struct large { long words[9]; };
struct pieces { char c; float f; short s[3]; };

TRACED double f_variadic(const char *kinds, ...)
{
    double sum = 0;
    va_list list;
    va_start(list, kinds);
    for (; *kinds; kinds++)
        sum += *kinds == 'd' ? va_arg(list, double)
             : *kinds == 'l' ? (double)va_arg(list, long double) : (double)va_arg(list, long);
    va_end(list);
    return sum;
}

TRACED struct small f_pair(long a, long b) { return (struct small){a * 3, b * 5}; }
TRACED struct mixed f_mixed(struct mixed m) { return (struct mixed){m.x * 2, m.n + 7}; }
TRACED struct pieces f_pieces(struct pieces p) { p.c++; p.f *= 2; p.s[2] -= 9; return p; }
TRACED struct large f_large(struct large l, long add)
{
    for (int i = 0; i < 9; i++)
        l.words[i] += add;
    return l;
}
TRACED long f_many(long a, long b, long c, long d, long e, long f, long g, double x, long h, long i)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + (long)(8 * x) + 9 * h + 10 * i;
}
TRACED __int128 f_wide_integer(__int128 a, long b) { return a * b + 1; }
TRACED _Complex double f_complex(_Complex double z) { return z * z; }
TRACED long double f_long_double(long double x, double y) { return x / 3 + y; }
TRACED double f_third(double x) { return x / 3; }
TRACED __m128i f_sse(__m128i a, __m128i b) { return _mm_add_epi32(a, b); }

__attribute__((noipa, target("avx"))) __m256d f_avx(__m256d a, double b)
{
    return _mm256_add_pd(a, _mm256_set1_pd(b));
}
__attribute__((noipa, target("avx512f"))) __m512i f_avx512(__m512i a, __mmask16 mask)
{
    return _mm512_mask_add_epi32(a, mask, a, a);
}

__attribute__((noipa, ms_abi)) long f_ms(long a, double b, long c, long d, long e)
{
    return a + (long)b * 2 + c * 3 + d * 4 + e * 5;
}
__attribute__((noipa, no_caller_saved_registers, target("general-regs-only"))) void f_keeps_all(
    long *where)
{
    *where += 11;
}
/* Its caller may take every register that it leaves alone for untouched (-fipa-ra). */
static __attribute__((noinline, noclone)) long f_local(long x) { return x * 9 + 4; }

static void calls(long i)
{
    long captured = i * 13;
    __attribute__((noipa)) long f_nested(long x) { return x + captured; } /* by r10 */
    struct large l, back;
    double d = i;
    for (int k = 0; k < 9; k++)
        l.words[k] = i + k;
#define CHECK(what, found, expected) \
    do { if (!((found) == (expected))) bed_bad(what, (long)(found), (long)(expected)); } while (0)
    CHECK("variadic", f_variadic("didld", d, i, 2.5, 1.25L, 4.0), d + i + 2.5 + 1.25 + 4.0);
    CHECK("nested", f_nested(5), captured + 5);
    struct small s = f_pair(i, i + 1);
    CHECK("pair", s.a * 1000 + s.b, i * 3000 + (i + 1) * 5);
    struct mixed m = f_mixed((struct mixed){d, i});
    CHECK("mixed", m.x + m.n, d * 2 + i + 7);
    struct pieces p = f_pieces((struct pieces){(char)i, 1.5f, {1, 2, (short)i}});
    CHECK("pieces", p.c == (char)(i + 1) && p.f == 3.0f && p.s[2] == (short)(i - 9), 1);
    back = f_large(l, 100);
    for (int k = 0; k < 9; k++)
        CHECK("large", back.words[k], i + k + 100);
    CHECK("many", f_many(i, 1, 2, 3, 4, 5, 6, 7.5, 8, 9), i + 2 + 6 + 12 + 20 + 30 + 42 + 60 + 72 + 90);
    CHECK("wide integer", f_wide_integer((__int128)i << 70, 3), ((__int128)i * 3 << 70) + 1);
    CHECK("complex", f_complex(d + 2.0i), (d * d - 4) + 4.0i * d);
    CHECK("ms", f_ms(i, 2.0, 3, 4, 5), i + 4 + 9 + 16 + 25);
    long kept = i;
    f_keeps_all(&kept);
    CHECK("keeps all", kept, i + 11);
    CHECK("local", f_local(i) + f_local(i + 1), i * 18 + 17);
    __m128i v = f_sse(_mm_set1_epi32((int)i), _mm_set1_epi32(3));
    CHECK("sse", _mm_extract_epi16(v, 0), (int)(i + 3) & 0xffff);
}

/* x87 and MXCSR: a mode set by the caller holds in the callee, and after it. */
static void modes(void)
{
    static volatile double one = 1.0;
    static volatile long double lone = 1.0L;
    double nearest = f_third(one);
    long double lnearest = f_long_double(lone, 0.0);
    fesetround(FE_UPWARD);
    double up = f_third(one);
    CHECK("rounding", fegetround(), FE_UPWARD);
    fesetround(FE_DOWNWARD);
    double down = f_third(one);
    long double ldown = f_long_double(lone, 0.0);
    fesetround(FE_TONEAREST);
    CHECK("SSE rounding", up > down && (nearest == up || nearest == down), 1);
    CHECK("x87 rounding", lnearest > ldown, 1);
    feclearexcept(FE_ALL_EXCEPT);
    f_third(one);
    CHECK("flag", fetestexcept(FE_INEXACT), FE_INEXACT);
    unsigned control = _mm_getcsr();
    _mm_setcsr(control | 0x8040); /* flush to zero, denormals are zero */
    f_third(one);
    CHECK("mxcsr", _mm_getcsr() & 0x8040, 0x8040);
    _mm_setcsr(control);
}

__attribute__((target("avx"))) static void vectors(void)
{
    __m256d v = f_avx(_mm256_set_pd(4, 3, 2, 1), 10);
    double out[4];
    _mm256_storeu_pd(out, v);
    CHECK("avx", out[0] + 2 * out[1] + 3 * out[2] + 4 * out[3], 11.0 + 24 + 39 + 56);
    _mm256_zeroupper();
}

__attribute__((target("avx512f"))) static void wide_vectors(void)
{
    int out[16];
    _mm512_storeu_si512(out, f_avx512(_mm512_set1_epi32(21), 0x8001));
    CHECK("avx512", out[0] == 42 && out[1] == 21 && out[15] == 42, 1);
}

/* Calls f_thin (which uses no stack) with rsp where it is told to. */
__attribute__((naked, noipa)) void f_thin(void) { asm("lea 1(%rdi), %rax; nop; nop; nop; ret"); }
__attribute__((naked, noinline)) static long call_at(long x, char *top)
{
    (void)x, (void)top;
    asm("push %rbx; mov %rsp, %rbx; mov %rsi, %rsp; call f_thin; mov %rbx, %rsp; pop %rbx; ret");
}

static void odd_stacks(char *guarded, long left)
{
    char room[8192]; /* below it lies what call_at itself has pushed */
    for (int off = 0; off < 16; off++)
        CHECK("misaligned", call_at(off, room + 8000 + off), off + 1);
    /* `left` bytes for whoever f_thin calls, behind its return address */
    CHECK("nearly full", call_at(77, guarded + left + 8), 78);
}

static volatile uint64_t *handled;
TRACED long f_handler(long x) { return x * 2 + 1; }
static void on_signal(int number)
{
    CHECK("handler", f_handler(number), number * 2 + 1);
    BED_ADD(*handled, 1);
}

static void *work(void *unused)
{
    volatile uint64_t *rounds = bed_counter("rounds");
    long pages = 4096, left = bed_number("left", 48), wide = bed_number("wide", 0);
    char *map = mmap(NULL, 2 * pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /* AT_MINSIGSTKSZ (51): what the kernel writes; the handler and whom it calls need a little */
    stack_t stack = {.ss_size = getauxval(51) + bed_number("room", 512)};
    char *alternate = mmap(NULL, pages + stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack.ss_sp = alternate + pages;
    (void)unused;
    mprotect(map, pages, PROT_NONE);
    mprotect(alternate, pages, PROT_NONE);
    if (sigaltstack(&stack, NULL))
        bed_bad("sigaltstack", errno, 0);
    while (bed_running()) {
        calls((long)(*rounds % 1000));
        modes();
        if (__builtin_cpu_supports("avx"))
            vectors();
        if (wide && __builtin_cpu_supports("avx512f"))
            wide_vectors();
        odd_stacks(map + pages, left);
        pthread_kill(pthread_self(), SIGUSR1);
        ++*rounds;
    }
    bed_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[16];
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    bed_open(argc, argv);
    handled = bed_counter("handled");
    sigaction(SIGUSR1, &action, NULL);
    long count = bed_number("threads", 2);
    for (long i = 0; i < count; i++)
        bed_enter();
    bed_threads(threads, count, work);
    bed_ready();
    bed_await_stop();
    for (long i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
