// build: gcc -O2 -fcf-protection=none -pthread hot.c check.S leaves.c
// N threads call every function of a table, with all registers, flags and vectors checked across
// each call. threads=4 check=1 pause_us=0 rounds=1 (rounds between two looks at the gate)
#include "bed.h"
#include "check.h"

static long pause_us, rounds;
static int checking;

static void *work(void *index)
{
    volatile uint64_t *counters[64], *also[64];
    struct registers want, got;
    uint64_t seed = 0x9e3779b97f4a7c15u * ((long)index + 1);

    for (int i = 0; hot_table[i].call; i++) {
        counters[i] = bed_counter(hot_table[i].name);
        also[i] = hot_table[i].also ? bed_counter(hot_table[i].also) : NULL;
    }
    while (bed_running()) {
        for (long round = 0; round < rounds; round++)
            for (int i = 0; hot_table[i].call; i++) {
                if (checking) {
                    seed = check_fill(&want, seed);
                    check_call(hot_table[i].call, &want, &got, check_vector_bytes());
                    check_compare(hot_table[i].name, &want, &got);
                } else {
                    hot_table[i].call();
                }
                ++*counters[i];
                if (also[i])
                    ++*also[i];
            }
        bed_nap_us(pause_us);
    }
    bed_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    static pthread_t threads[1024];
    bed_open(argc, argv);
    long n = bed_number("threads", 4);
    checking = bed_number("check", 1);
    pause_us = bed_number("pause_us", 0);
    rounds = bed_number("rounds", 1);
    for (long i = 0; i < n; i++)
        bed_enter();
    bed_threads(threads, n, work);
    bed_ready();
    bed_await_stop();
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
