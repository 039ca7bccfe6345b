// build: gcc -O2 -fcf-protection=none -pthread stopped.c
// Two threads call f_running; the process stops itself (SIGSTOP) once after READY if self=1.
// Counts SIGCONTs handled: stops and continues by the test must all arrive, and no other.
#include "bed.h"

static volatile uint64_t *continued;

__attribute__((noipa)) long f_running(long x) { return x * 3 + 1; }

static void on_continue(int number)
{
    (void)number;
    BED_ADD(*continued, 1);
}

static void *work(void *unused)
{
    volatile uint64_t *calls = bed_counter("f_running");
    while (bed_running()) {
        for (long i = 0; i < 100; i++, ++*calls)
            if (f_running(i) != i * 3 + 1)
                bed_bad("f_running", i, 0);
        bed_nap_us(200);
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_continue, .sa_flags = SA_RESTART};
    pthread_t threads[2];
    bed_open(argc, argv);
    continued = bed_counter("continued");
    sigaction(SIGCONT, &action, NULL);
    bed_enter();
    bed_enter();
    bed_threads(threads, 2, work);
    bed_ready();
    if (bed_number("self", 0))
        kill(getpid(), SIGSTOP);
    bed_await_stop();
    for (long i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
