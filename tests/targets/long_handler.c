// build: gcc -O2 -fcf-protection=none -pthread long_handler.c
// The only thread computes and makes no system call; the handler of SIGUSR1 sleeps until the test
// wishes something.
// entered and handled count its beginnings and ends, rounds what the thread does.
#include "bed.h"

static volatile uint64_t *entered, *handled;

static void on_signal(int number)
{
    (void)number;
    ++*entered;
    while (!BED_LOAD(bed->wish) && !BED_LOAD(bed->stop))
        bed_nap_us(1000);
    ++*handled;
}

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    entered = bed_counter("entered");
    handled = bed_counter("handled");
    volatile uint64_t *rounds = bed_counter("rounds");
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    signal(SIGUSR1, on_signal);
    bed_ready();
    while (!BED_LOAD(bed->stop)) {
        ++*rounds;
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    return bed_end();
}
