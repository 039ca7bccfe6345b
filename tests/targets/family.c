// build: gcc -O2 -fcf-protection=none -pthread family.c
// A process and its descendants, all calling f_work. When the gate opens it forks long=N children,
// each of which forks another one and, with daemons=1, ends at once: the other stays. Then, each
// round, storm=N children at the same time that call storm_calls=N times, fork one more that does
// so, and end. Counts: f_work, by all of them; tid.N, by the long-lived one with this tid.
// wish N: process N executes sleep; 1: the first process ends alone; 2: long-lived children keep
// everybody of their user from looking at them.
#include "bed.h"
#include <sys/prctl.h>
#include <sys/wait.h>

static volatile uint64_t *calls;

__attribute__((noipa)) long f_work(long x) { return x * 3 + 1; }

static void work(long n, volatile uint64_t *own)
{
    for (long i = 0; i < n; i++) {
        if (f_work(i) != i * 3 + 1)
            bed_bad("f_work", i, 0);
        BED_ADD(*calls, 1);
        if (own)
            ++*own;
    }
}

static void live(void)
{
    char name[32];
    snprintf(name, sizeof name, "tid.%d", getpid());
    prctl(PR_SET_NAME, "long-lived");
    volatile uint64_t *own = bed_counter(name);
    while (bed_running()) {
        if ((pid_t)BED_LOAD(bed->wish) == getpid())
            execlp("sleep", "sleep", "30", NULL);
        if (BED_LOAD(bed->wish) == 2)
            prctl(PR_SET_DUMPABLE, 0);
        work(5, own);
        bed_nap_us(300);
    }
    bed_leave();
    _exit(0);
}

static void settle(long children, long daemons)
{
    for (long i = 0; i < children; i++) {
        bed_enter();
        if (!daemons)
            bed_enter();
        pid_t child = fork();
        if (child) {
            if (daemons)
                waitpid(child, NULL, 0);
            continue;
        }
        work(3, NULL);
        if (!fork() || !daemons)
            live();
        _exit(0);
    }
}

static void storm(long children, long n)
{
    for (long i = 0; i < children; i++)
        if (!fork()) {
            work(n, NULL);
            if (!fork()) {
                work(n, NULL);
                _exit(0);
            }
            work(n, NULL);
            wait(NULL);
            _exit(0);
        }
    for (long i = 0; i < children; i++)
        wait(NULL);
}

static void *call(void *unused)
{
    while (bed_running()) {
        work(5, NULL);
        bed_nap_us(500);
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    static pthread_t threads[16];
    bed_open(argc, argv);
    calls = bed_counter("f_work");
    volatile uint64_t *rounds = bed_counter("rounds");
    long n = bed_number("threads", 1), settled = 0;
    for (long i = 0; i <= n; i++)
        bed_enter();
    bed_threads(threads, n, call);
    bed_ready();
    while (bed_running()) {
        if (BED_LOAD(bed->wish) == 1)
            _exit(0);
        if (!settled++)
            settle(bed_number("long", 0), bed_number("daemons", 0));
        work(5, NULL);
        storm(bed_number("storm", 0), bed_number("storm_calls", 7));
        bed_nap_us(200);
        ++*rounds;
    }
    bed_leave();
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
