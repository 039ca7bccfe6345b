// build: gcc -O2 -fcf-protection=none -pthread vfork_parent.c
// The main thread sits in vfork (state D) while its child sleeps ms=300; another thread calls
// f_beside all the time. vforks counts children; ready is set within the first child's life.
// stays=1: children stay on until the test wishes something.
#include "bed.h"
#include <sys/wait.h>

__attribute__((noipa)) long f_beside(long x) { return x * 3 + 1; }

static void *work(void *unused)
{
    volatile uint64_t *calls = bed_counter("f_beside");
    while (bed_running()) {
        for (long i = 0; i < 100; i++, ++*calls)
            if (f_beside(i) != i * 3 + 1)
                bed_bad("f_beside", i, 0);
        bed_nap_us(200);
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    int status;
    bed_open(argc, argv);
    volatile uint64_t *vforks = bed_counter("vforks");
    long ms = bed_number("ms", 300), end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    long stays = bed_number("stays", 0);
    bed_enter();
    bed_threads(&thread, 1, work);
    while (!BED_LOAD(bed->stop)) {
        struct timespec t = {ms / 1000, ms % 1000 * 1000000};
        pid_t child = vfork();
        if (!child) {
            if (!*vforks)
                __atomic_store_n(&bed->ready, 1, __ATOMIC_RELEASE);
            do
                syscall(SYS_nanosleep, &t, NULL);
            while (stays && !BED_LOAD(bed->wish) && !BED_LOAD(bed->stop));
            _exit(5);
        }
        ++*vforks;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            bed_bad("waitpid interrupted", EINTR, 0);
        if (status != 5 << 8)
            bed_bad("status of the vfork child", status, 5 << 8);
        bed_nap_us(20000);
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    pthread_join(thread, NULL);
    return bed_end();
}
