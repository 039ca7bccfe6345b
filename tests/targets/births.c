// build: gcc -O2 -fcf-protection=none -pthread births.c
// The main thread itself makes and joins threads as fast as possible; each calls f_born once.
#include "bed.h"

static volatile uint64_t *calls;

__attribute__((noipa)) long f_born(long x) { return x * 3 + 1; }

static void *live_shortly(void *unused)
{
    f_born(1);
    ++*calls;
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    bed_open(argc, argv);
    bed_enter();
    calls = bed_counter("f_born");
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    bed_ready();
    while (bed_running()) {
        bed_threads(&thread, 1, live_shortly);
        pthread_join(thread, NULL);
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    return bed_end();
}
