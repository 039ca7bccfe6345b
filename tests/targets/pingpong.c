// build: gcc -O2 -fcf-protection=none -pthread pingpong.c
// Two threads, each bound to a CPU of its own where there are two, call f_ping and f_pong strictly
// in turn, n=1000 times each; first_ns and last_ns are CLOCK_MONOTONIC before and after them all.
#include "bed.h"
#include <sched.h>

static long n, turn;
static int cpus[2];

__attribute__((noipa)) long f_ping(long x) { return x * 3 + 1; }
__attribute__((noipa)) long f_pong(long x) { return x * 5 + 2; }

static void *work(void *index)
{
    long mine = (long)index;
    volatile uint64_t *calls = bed_counter(mine ? "f_pong" : "f_ping");
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpus[mine], &set);
    if (sched_setaffinity(0, sizeof set, &set))
        bed_bad("sched_setaffinity", errno, 0);
    for (long i = 0; i < n && bed_running(); i++) {
        while (BED_LOAD(turn) != 2 * i + mine)
            if (cpus[0] == cpus[1])
                sched_yield();
            else /* who yields waits for all others of its CPU at each turn */
                __builtin_ia32_pause();
        if (mine ? f_pong(i) != i * 5 + 2 : f_ping(i) != i * 3 + 1)
            bed_bad("call", i, mine);
        ++*calls;
        BED_ADD(turn, 1);
    }
    bed_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[2];
    cpu_set_t set;
    bed_open(argc, argv);
    n = bed_number("n", 1000);
    volatile uint64_t *first = bed_counter("first_ns"), *last = bed_counter("last_ns");
    sched_getaffinity(0, sizeof set, &set);
    for (int cpu = 0, found = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
        if (CPU_ISSET(cpu, &set))
            cpus[found++] = cpus[1] = cpu;
    *bed_counter("cpus") = 1 + (cpus[0] != cpus[1]);
    bed_enter();
    bed_ready();
    if (!bed_running()) /* the test holds the gate until it has attached */
        return bed_end();
    bed_leave(), bed_enter(), bed_enter();
    *first = bed_now_ns();
    bed_threads(threads, 2, work);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    *last = bed_now_ns();
    bed_await_stop();
    return bed_end();
}
