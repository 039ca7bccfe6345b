// build: gcc -O2 -fcf-protection=none -pthread relay.c
// Chains of threads: each calls f_relay, makes the next one and ends, so that a list of threads is
// out of date before it is read to its end. chains=6 calls=5
#include "bed.h"

static long calls;
static volatile uint64_t *called;
static pthread_attr_t detached;

__attribute__((noipa)) long f_relay(long depth) { return depth * 3 + 1; }

static void *run(void *depth)
{
    pthread_t next;
    long sum = 0;
    if (!bed_running()) {
        bed_leave();
        return NULL;
    }
    while (pthread_create(&next, &detached, run, (char *)depth + 1))
        bed_nap_us(100);
    for (long i = 0; i < calls; i++)
        sum += f_relay(i);
    if (sum != calls * (calls - 1) / 2 * 3 + calls)
        bed_bad("sum", sum, (long)depth);
    BED_ADD(*called, calls);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t first;
    bed_open(argc, argv);
    calls = bed_number("calls", 5);
    called = bed_counter("f_relay");
    pthread_attr_init(&detached);
    pthread_attr_setstacksize(&detached, 64 * 1024);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    for (long i = bed_number("chains", 6); i; i--) {
        bed_enter();
        if (pthread_create(&first, &detached, run, NULL))
            bed_bad("pthread_create", i, 0);
    }
    bed_ready();
    bed_await_stop();
    while (BED_LOAD(bed->workers))
        bed_nap_us(1000);
    return bed_end();
}
