// build: gcc -O2 -fcf-protection=none -pthread long_handler.c
// The only thread computes and makes no system call; the handler of SIGUSR1 sleeps ms=300.
// entered and handled count its beginnings and ends, rounds what the thread does.
#include "bed.h"

static volatile uint64_t *entered, *handled;
static long handler_us;

static void on_signal(int number)
{
    (void)number;
    ++*entered;
    bed_nap_us(handler_us);
    ++*handled;
}

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    entered = bed_counter("entered");
    handled = bed_counter("handled");
    volatile uint64_t *rounds = bed_counter("rounds");
    handler_us = bed_number("ms", 300) * 1000;
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
