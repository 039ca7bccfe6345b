// build: gcc -O2 -pthread chaos.c -ldl
// Threads that call functions of every shape in an order drawn from seed=1, while others are born
// and die, children are forked, a library=PATH comes and goes, and signals run handlers that call as
// well. threads=6 signal_us=500 (0: none). Every result is checked; every call of f_... is counted.
#include "bed.h"
#include <dlfcn.h>
#include <setjmp.h>
#include <sys/wait.h>

#ifdef __clang__
#define F __attribute__((noinline))
#else
#define F __attribute__((noipa))
#endif
#define SHAPES 16

static volatile uint64_t *called[SHAPES], *handled, *forks, *births, *loads;
static int is_child; /* private: a forked child shares the counters, and is not traced */
static const char *library;
static long seed, signal_us;

#define COUNT(i) ((void)(is_child || BED_ADD(*called[i], 1)))

F long f_leaf(long x) { COUNT(0); return x + 1; }
F long f_branch(long x) { COUNT(1); return x & 1 ? x * 3 : x / 2; }
F long f_loop(long x) { long s = 0; COUNT(2); for (long i = 0; i < (x & 15); i++) s += i; return s; }
static long (*volatile again)(long); /* or the compiler makes a loop of it */
F long f_recursive(long x) { COUNT(3); return x > 0 ? again(x - 1) + 2 : 5; }
F long f_tail(long x) { COUNT(4); return f_leaf(x ^ 1); }
F double f_double(double x, float y) { COUNT(5); return x * 2 + y; }
F long f_many(long a, long b, long c, long d, long e, long f, long g, long h)
{
    COUNT(6);
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h;
}
struct large { long words[9]; };
F struct large f_struct(struct large in)
{
    COUNT(7);
    for (int i = 0; i < 9; i++)
        in.words[i] += i;
    return in;
}
F long f_calls(long x) { COUNT(8); return f_leaf(x) + f_branch(x); }
F long f_switch(long x)
{
    COUNT(9);
    switch (x & 7) {
    case 0: return 11;
    case 1: return x;
    case 2: return x * 5;
    case 3: return -x;
    case 4: return x << 3;
    case 5: return x ^ 0x55;
    case 6: return 7 - x;
    default: return 1;
    }
}
F long f_alloca(long x)
{
    volatile char *p = __builtin_alloca((x & 63) + 16);
    COUNT(10);
    p[x & 15] = (char)x;
    return p[x & 15];
}
F void f_jump(jmp_buf back, int how) { COUNT(11); longjmp(back, how); }
F long f_set_jump(long x)
{
    jmp_buf back;
    int how;
    COUNT(12);
    if ((how = setjmp(back)))
        return how + x;
    f_jump(back, 3);
    return 0;
}
F long f_pointer(long (*f)(long), long x) { COUNT(13); return f(x); }
F long f_handled(long x) { COUNT(14); return x * 9; }
F long f_short_thread(long x) { COUNT(15); return x - 4; }

static const char *names[SHAPES] = {
    "f_leaf", "f_branch", "f_loop", "f_recursive", "f_tail", "f_double", "f_many", "f_struct",
    "f_calls", "f_switch", "f_alloca", "f_jump", "f_set_jump", "f_pointer", "f_handled",
    "f_short_thread",
};

static void expect(const char *what, long found, long expected)
{
    if (found != expected)
        bed_bad(what, found, expected);
}

/* One call of a shape, with what it must give. */
static void call(unsigned shape, long x)
{
    struct large in = {{x, x, x, x, x, x, x, x, x}};
    static const long products[] = {11, 0, 0, 0, 0, 0, 0, 1};
    switch (shape % 14) {
    case 0: expect("f_leaf", f_leaf(x), x + 1); break;
    case 1: expect("f_branch", f_branch(x), x & 1 ? x * 3 : x / 2); break;
    case 2: expect("f_loop", f_loop(x), (x & 15) * ((x & 15) - 1) / 2); break;
    case 3: expect("f_recursive", f_recursive(x & 7), 5 + 2 * (x & 7)); break;
    case 4: expect("f_tail", f_tail(x), (x ^ 1) + 1); break;
    case 5: expect("f_double", (long)f_double((double)(x & 0xffff), 3.0f), 2 * (x & 0xffff) + 3); break;
    case 6: expect("f_many", f_many(x, 1, 2, 3, 4, 5, 6, 7), x + 168); break;
    case 7: expect("f_struct", f_struct(in).words[8], x + 8); break;
    case 8: expect("f_calls", f_calls(x), x + 1 + (x & 1 ? x * 3 : x / 2)); break;
    case 9:
        if ((x & 7) == 0 || (x & 7) == 7)
            expect("f_switch", f_switch(x), products[x & 7]);
        else if ((x & 7) == 3)
            expect("f_switch", f_switch(x), -x);
        else
            f_switch(x);
        break;
    case 10: expect("f_alloca", f_alloca(x), (char)x); break;
    case 11: expect("f_set_jump", f_set_jump(x), x + 3); break;
    case 12: expect("f_pointer", f_pointer(f_leaf, x), x + 1); break;
    case 13: expect("f_pointer", f_pointer(f_switch, 8), 11); break;
    }
}

static unsigned long next(unsigned long *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void on_signal(int number)
{
    int kept = errno;
    expect("f_handled", f_handled(number), number * 9);
    if (!is_child)
        BED_ADD(*handled, 1);
    errno = kept;
}

static void *live_shortly(void *x)
{
    for (long i = 0; i < 20; i++)
        expect("f_short_thread", f_short_thread((long)x + i), (long)x + i - 4);
    return NULL;
}

static void bear(long x)
{
    pthread_t thread;
    bed_threads(&thread, 1, live_shortly);
    pthread_join(thread, NULL);
    BED_ADD(*births, 1);
    (void)x;
}

static void fork_one(long x)
{
    int status = 0;
    pid_t child = fork();
    if (!child) {
        is_child = 1;
        for (unsigned i = 0; i < 100; i++)
            call(i, x + i);
        _exit(0);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    expect("a forked child", status, 0);
    BED_ADD(*forks, 1);
}

static void load(long x)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    long (*function)(long) = handle ? (long (*)(long))dlsym(handle, "f_library") : NULL;
    if (!function) {
        bed_bad("dlopen", 0, 1);
        return;
    }
    long first = function(x);
    for (int i = 0; i < 50; i++)
        expect("f_library", function(x), first);
    dlclose(handle);
    BED_ADD(*loads, 1);
}

static void *work(void *number)
{
    unsigned long state = (seed * 1000003UL + (unsigned long)number * 7919 + 1) | 1;
    while (bed_running()) {
        for (int i = 0; i < 64; i++) {
            unsigned long drawn = next(&state);
            call(drawn >> 8, (long)(drawn >> 16 & 0xffffff));
        }
        unsigned long drawn = next(&state) % 4000;
        if (drawn < 8)
            bear((long)drawn);
        else if (drawn < 10)
            fork_one((long)drawn);
        else if (drawn < 12 && *library)
            load((long)drawn);
        else if (drawn < 14)
            bed_nap_us(300);
    }
    bed_leave();
    return NULL;
}

/* One signal at a time: the gate closes when the last one has been handled. */
static void *send(void *threads)
{
    long n = bed_number("threads", 6);
    for (unsigned long sent = 0; bed_running();) {
        pthread_kill(((pthread_t *)threads)[sent % n], sent & 1 ? SIGUSR1 : SIGUSR2);
        sent++;
        while (BED_LOAD(*handled) < sent && !BED_LOAD(bed->stop))
            bed_nap_us(20);
        bed_nap_us(signal_us);
    }
    bed_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    static pthread_t threads[64], sender;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    bed_open(argc, argv);
    again = f_recursive;
    seed = bed_number("seed", 1);
    signal_us = bed_number("signal_us", 500);
    library = bed_text("library", "");
    for (int i = 0; i < SHAPES; i++)
        called[i] = bed_counter(names[i]);
    handled = bed_counter("handled");
    forks = bed_counter("forks");
    births = bed_counter("births");
    loads = bed_counter("loads");
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    long n = bed_number("threads", 6);
    for (long i = 0; i < n + (signal_us > 0); i++)
        bed_enter();
    bed_threads(threads, n, work);
    if (signal_us)
        pthread_create(&sender, NULL, send, threads);
    bed_ready();
    bed_await_stop();
    if (signal_us)
        pthread_join(sender, NULL);
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
