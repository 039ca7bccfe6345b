// build: gcc -O1 -fcf-protection=none -pthread sites.c
// 10,000 functions of each kind, sleeping and busy threads, and one that watches its own clock.
// Arguments: SLEEPING BUSY. Lines of stdin: "done" (how often busy threads went round, in thousands);
// in turn "watch" (begin to watch) and "gap" (the longest time, in ns, that the watching thread was
// not running since).
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NOP(n)   __attribute__((noipa, patchable_function_entry(5, 0))) \
                 long nop_##n(long x) { return x * 3 + 7; }
#define PLAIN(n) __attribute__((noipa)) long plain_##n(long x) { return x * 3 + 7; }
#define TEN(F, n)      F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7) F(n##8) F(n##9)
#define HUNDRED(F, n)  TEN(F, n##0) TEN(F, n##1) TEN(F, n##2) TEN(F, n##3) TEN(F, n##4) \
                       TEN(F, n##5) TEN(F, n##6) TEN(F, n##7) TEN(F, n##8) TEN(F, n##9)
#define THOUSAND(F, n) HUNDRED(F, n##0) HUNDRED(F, n##1) HUNDRED(F, n##2) HUNDRED(F, n##3) \
                       HUNDRED(F, n##4) HUNDRED(F, n##5) HUNDRED(F, n##6) HUNDRED(F, n##7) \
                       HUNDRED(F, n##8) HUNDRED(F, n##9)
#define ALL(F) THOUSAND(F, 0) THOUSAND(F, 1) THOUSAND(F, 2) THOUSAND(F, 3) THOUSAND(F, 4) \
               THOUSAND(F, 5) THOUSAND(F, 6) THOUSAND(F, 7) THOUSAND(F, 8) THOUSAND(F, 9)
ALL(NOP)
ALL(PLAIN)

static atomic_int watching, seen;  // turns: odd ones are watched
static _Atomic uint64_t gap;
static pthread_barrier_t started;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *watch(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&started);
    for (;;) {
        uint64_t longest = 0, last;
        int turn = watching;
        if (!(turn & 1)) {
            usleep(100);
            continue;
        }
        gap = 0;
        last = now_ns();
        seen = turn;
        do {
            uint64_t now = now_ns();
            if (now - last > longest)
                gap = longest = now - last;
            last = now;
        } while (watching == turn);
        seen = turn + 1;
    }
    return NULL;
}

static void *rest(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&started);
    for (;;)
        pause();
    return NULL;
}

static struct { _Alignas(64) _Atomic uint64_t thousands; } rounds[1024];

static void *work(void *number)
{
    volatile long x = (long)number;
    pthread_barrier_wait(&started);
    for (;; rounds[(long)number & 1023].thousands++)
        for (int i = 0; i < 1000; i++)
            x = nop_0001(x) + plain_0001(x);
    return NULL;
}

static uint64_t done(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 1024; i++)
        sum += rounds[i].thousands;
    return sum;
}

static void start(void *(*function)(void *), long number)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 65536);
    if (pthread_create(&thread, &attributes, function, (void *)number))
        exit(3);
}

int main(int argc, char **argv)
{
    char line[64];
    int sleeping = argc > 1 ? atoi(argv[1]) : 0, busy = argc > 2 ? atoi(argv[2]) : 0;

    pthread_barrier_init(&started, NULL, sleeping + busy + 2);
    start(watch, 0);
    for (int i = 0; i < sleeping; i++)
        start(rest, i);
    for (int i = 0; i < busy; i++)
        start(work, i);
    pthread_barrier_wait(&started);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == 'd') {
            printf("%llu\n", (unsigned long long)done());
            fflush(stdout);
            continue;
        }
        int turn = ++watching;  // "watch" and "gap" take turns
        while (seen != turn)
            usleep(50);
        printf("%llu\n", (unsigned long long)gap);
        fflush(stdout);
    }
    return 0;
}
