// build: gcc -O2 -fcf-protection=none -pthread children.c
// Forks one child when the gate first opens; both call f_work. Counts: f_work by the parent,
// f_child by the child (which ends with its parent or on SIGTERM), child = its pid.
#include "bed.h"
#include <sys/prctl.h>
#include <sys/wait.h>

__attribute__((noipa)) long f_work(long x) { return x * 3 + 1; }

static void child_life(volatile uint64_t *calls)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (long i = 0; !BED_LOAD(bed->stop); i++, ++*calls) {
        if (f_work(i) != i * 3 + 1)
            bed_bad("f_work in the child", i, 0);
        bed_nap_us(500);
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    bed_enter();
    volatile uint64_t *calls = bed_counter("f_work"), *of_child = bed_counter("f_child");
    volatile uint64_t *pid = bed_counter("child");
    pid_t child = 0;
    bed_ready();
    while (bed_running()) {
        if (!child && !(child = fork()))
            child_life(of_child);
        *pid = child;
        for (long i = 0; i < 10; i++, ++*calls)
            if (f_work(i) != i * 3 + 1)
                bed_bad("f_work", i, 0);
        bed_nap_us(500);
    }
    if (child > 0) {
        kill(child, SIGTERM);
        waitpid(child, NULL, 0);
    }
    return bed_end();
}
