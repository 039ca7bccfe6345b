// build: gcc -O2 -fcf-protection=none -pthread limited.c
// Works under a limit of memory: how=mlock locks all of it, now and in future; how=as leaves
// pages=N pages of address space. The counter skip says that the limit could not be set.
#include "bed.h"
#include <sys/resource.h>

__attribute__((noipa)) long f_limited(long x) { return x * 3 + 1; }

static int limit_memory(void)
{
    if (!strcmp(bed_text("how", "mlock"), "mlock"))
        return mlockall(MCL_CURRENT | MCL_FUTURE);
    long used = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld", &used) != 1)
        return -1;
    fclose(file);
    struct rlimit limit;
    limit.rlim_cur = limit.rlim_max = (used + bed_number("pages", 100)) * 4096;
    return setrlimit(RLIMIT_AS, &limit);
}

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    bed_enter();
    volatile uint64_t *calls = bed_counter("f_limited"), *skip = bed_counter("skip");
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    bed_ready(); /* first: stdio allocates its buffer here */
    *skip = limit_memory() != 0;
    for (volatile long i = 0; bed_running(); i++) {
        if (f_limited(i) != i * 3 + 1)
            bed_bad("f_limited", i, 0);
        ++*calls;
        bed_nap_us(200);
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    return bed_end();
}
