// build: gcc -O2 -fcf-protection=none -pthread exec_thread.c
// A thread that is not the main one replaces the process by exec, again and again, some 300 to
// 600 us after its start; leaves=1: the main thread has ended by then; idle=0 threads are killed by
// the exec. execs counts the images.
#include "bed.h"

static char **arguments;

static void *replace(void *unused)
{
    bed_nap_us(300 + bed_now_ns() % 300);
    if (BED_LOAD(bed->stop))
        exit(bed_end());
    execv(arguments[0], arguments); /* /proc/self/exe is gone with the main thread */
    bed_bad("exec", errno, 0);
    exit(bed_end());
    return unused;
}

static void *idle(void *unused)
{
    for (;;)
        bed_nap_us(200);
    return unused;
}

int main(int argc, char **argv)
{
    static pthread_t thread, others[64];
    bed_open(argc, argv);
    arguments = argv;
    if (!getenv("FENTRY_BED"))
        return bed_end(); /* by hand: one image, for the page would not outlive it */
    if (!BED_LOAD(bed->nr_slots)) {
        bed_counter("execs");
        bed_ready();
    }
    ++bed->slots[0].value;
    bed_threads(others, bed_number("idle", 0), idle);
    bed_threads(&thread, 1, replace);
    if (bed_number("leaves", 0))
        pthread_exit(NULL);
    for (;;)
        pause();
}
