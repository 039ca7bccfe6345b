// build: g++ -O2 -fcf-protection=none -pthread throw.cpp
// threads=2 throw through depth=20 frames with destructors, catch, rethrow, and unwind by
// backtrace now and then. Counts: f_throws (each level), catches, destroyed (must be equal sums).
#include "bed.h"
#include <execinfo.h>
#include <stdexcept>

static long depth;
static thread_local long destroyed;

struct Guard {
    ~Guard() { ++destroyed; }
};

extern "C" __attribute__((noipa)) long f_throws(long n)
{
    Guard guard;
    if (!n)
        throw std::runtime_error("the deepest");
    return f_throws(n - 1) + 1;
}

extern "C" __attribute__((noipa)) long f_rethrows(long n)
{
    try {
        return f_throws(n);
    } catch (const std::runtime_error &) {
        throw;
    }
}

static void *work(void *unused)
{
    volatile uint64_t *calls = bed_counter("f_throws"), *outer = bed_counter("f_rethrows");
    volatile uint64_t *catches = bed_counter("catches");
    void *frames[8];
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    for (long round = 1; bed_running(); round++) {
        destroyed = 0;
        try {
            bed_bad("no exception", f_rethrows(depth), 0);
        } catch (const std::exception &) {
            ++*catches;
        }
        *calls = *calls + depth + 1;
        ++*outer;
        if (destroyed != depth + 1)
            bed_bad("destructors", destroyed, depth + 1);
        if (round % 64 == 0 && backtrace(frames, 8) < 2)
            bed_bad("backtrace", 0, 2);
        bed_nap_us(bed_number("pause_us", 0));
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    static pthread_t threads[64];
    bed_open(argc, argv);
    long n = bed_number("threads", 2);
    depth = bed_number("depth", 20);
    for (long i = 0; i < n; i++)
        bed_enter();
    bed_threads(threads, n, work);
    bed_ready();
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
