// build: gcc -O2 -fcf-protection=none -pthread vforked.c
// A thread calls f_hot without end on one CPU; at the same time children that share its memory
// (CLONE_VM | CLONE_VFORK) call it calls=10 times each, on another CPU if moved=1.
#include "bed.h"
#include <sched.h>
#include <sys/wait.h>

static char stack[1 << 16] __attribute__((aligned(16)));
static volatile uint64_t *of_children;
static long calls, moved;

__attribute__((noipa)) long f_hot(long x) { return x * 5 + x / 3; }

static void stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void *work(void *unused)
{
    volatile uint64_t *mine = bed_counter("f_hot");
    stay_on(0);
    while (bed_running())
        for (long i = 0; i < 100; i++, ++*mine)
            f_hot(i);
    bed_leave();
    return unused;
}

static int be_child(void *unused)
{
    (void)unused;
    if (moved)
        stay_on(1);
    for (long i = 0; i < calls; i++, ++*of_children)
        f_hot(i);
    _exit(0);
}

int main(int argc, char **argv)
{
    pthread_t thread;
    bed_open(argc, argv);
    calls = bed_number("calls", 10);
    moved = bed_number("moved", 0);
    of_children = bed_counter("f_hot");
    volatile uint64_t *children = bed_counter("children");
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    bed_enter();
    bed_enter();
    stay_on(0);
    bed_threads(&thread, 1, work);
    bed_ready();
    while (bed_running()) {
        int child = clone(be_child, stack + sizeof stack - 64,
                          CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
        if (child < 0 || waitpid(child, NULL, 0) != child)
            bed_bad("clone", child, errno);
        ++*children;
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    pthread_join(thread, NULL);
    return bed_end();
}
