// build: gcc -O2 -fcf-protection=none -pthread overflow.c
// threads=16 call f_busy as fast as they can, calls=N each per opening of the gate, without end
// if calls=0; then they wait for stop. The count is exact at any time the gate holds.
#include "bed.h"

static long limit;

__attribute__((noipa)) long f_busy(long x) { return x * 3 + 1; }

static void *work(void *unused)
{
    volatile uint64_t *calls = bed_counter("f_busy");
    while (bed_running() && (!limit || *calls < (uint64_t)limit)) {
        long n = limit && limit - (long)*calls < 1000 ? limit - (long)*calls : 1000;
        for (long i = 0; i < n; i++)
            f_busy(i);
        *calls += n;
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    static pthread_t threads[1024];
    bed_open(argc, argv);
    long n = bed_number("threads", 16);
    limit = bed_number("calls", 0);
    for (long i = 0; i < n; i++)
        bed_enter();
    bed_threads(threads, n, work);
    bed_ready();
    bed_await_stop();
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
