// build: gcc -O2 -fcf-protection=none -pthread storm.c
// Threads made and joined as fast as possible; each calls f_storm a known number of times.
// makers=2 batch=8 calls=10
#include "bed.h"

static long calls, batch;
static volatile uint64_t *made, *called;

__attribute__((noipa)) long f_storm(long depth) { return depth * 3 + 1; }

static void *live_shortly(void *number)
{
    long sum = 0;
    for (long i = 0; i < calls; i++)
        sum += f_storm(i);
    if (sum != calls * (calls - 1) / 2 * 3 + calls)
        bed_bad("sum of a short thread", sum, (long)number);
    BED_ADD(*called, calls);
    return NULL;
}

static void *make(void *unused)
{
    pthread_t threads[64];
    while (bed_running()) {
        bed_threads(threads, batch, live_shortly);
        for (long i = 0; i < batch; i++)
            pthread_join(threads[i], NULL);
        BED_ADD(*made, batch);
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    static pthread_t makers[64];
    bed_open(argc, argv);
    calls = bed_number("calls", 10);
    batch = bed_number("batch", 8);
    made = bed_counter("threads");
    called = bed_counter("f_storm");
    long n = bed_number("makers", 2);
    for (long i = 0; i < n; i++)
        bed_enter();
    bed_threads(makers, n, make);
    bed_ready();
    bed_await_stop();
    for (long i = 0; i < n; i++)
        pthread_join(makers[i], NULL);
    return bed_end();
}
