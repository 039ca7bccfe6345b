// build: gcc -O2 -fcf-protection=none -pthread zombie_leader.c
// The main thread ends by pthread_exit and stays as a zombie; the workers go on. threads=3
#include "bed.h"

static long left;

__attribute__((noipa)) long f_worker(long x) { return x * 3 + 1; }

static void *work(void *unused)
{
    volatile uint64_t *calls = bed_counter("f_worker");
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    while (bed_running()) {
        for (long i = 0; i < 100; i++, ++*calls)
            if (f_worker(i) != i * 3 + 1)
                bed_bad("f_worker", i, 0);
        bed_nap_us(200);
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    if (!BED_ADD(left, -1))
        exit(bed_end());
    return unused;
}

/* READY only when the kernel calls the leader a zombie. */
static void *announce(void *unused)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
    for (char state = 0; state != 'Z'; bed_nap_us(1000)) {
        FILE *file = fopen(path, "r");
        if (file && fgets(text, sizeof text, file))
            state = strrchr(text, ')')[2];
        if (file)
            fclose(file);
    }
    bed_ready();
    return unused;
}

int main(int argc, char **argv)
{
    static pthread_t threads[64], announcer;
    bed_open(argc, argv);
    left = bed_number("threads", 3);
    for (long i = 0; i < left; i++)
        bed_enter();
    bed_threads(threads, left, work);
    bed_threads(&announcer, 1, announce);
    pthread_exit(NULL);
}
