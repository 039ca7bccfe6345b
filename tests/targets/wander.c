// build: gcc -O2 -fcf-protection=none -pthread wander.c
// threads=6 call f_first and f_second in turn; each moves to the next CPU after every 50 turns.
#include "bed.h"
#include <sched.h>

__attribute__((noipa)) long f_first(long x) { return x * 5 + x / 3; }
__attribute__((noipa)) long f_second(long x) { return x * 7 + x / 5; }

static void *work(void *unused)
{
    volatile uint64_t *first = bed_counter("f_first"), *second = bed_counter("f_second");
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    for (long cpu = 0; bed_running(); cpu++) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu % cpus, &set);
        sched_setaffinity(0, sizeof set, &set);
        for (long i = 0; i < 50; i++, ++*first, ++*second)
            if (f_first(i) + f_second(i) != i * 12 + i / 3 + i / 5)
                bed_bad("result", i, 0);
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    bed_open(argc, argv);
    long count = bed_number("threads", 6);
    for (long i = 0; i < count; i++)
        bed_enter();
    bed_threads(threads, count, work);
    bed_ready();
    for (long i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
