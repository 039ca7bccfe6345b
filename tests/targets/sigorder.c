// build: gcc -O2 -fcf-protection=none -pthread sigorder.c
// A thread queues SIGRTMIN with the values 0, 1, 2, ... to the main thread; its handler checks that
// each arrives once and in order, and calls f_handler. Counts: sent, handled, f_handler, f_main.
// At the closed gate nothing is under way: sent = handled.
#include "bed.h"

static volatile uint64_t *sent, *handled, *handler_calls;
static pthread_t receiver;

__attribute__((noipa)) long f_main(long x) { return x * 3 + 1; }
__attribute__((noipa)) long f_handler(long x) { return x * 5 + 2; }

static void on_signal(int number, siginfo_t *received, void *context)
{
    (void)number, (void)context;
    long value = received->si_value.sival_int;
    if (received->si_code != SI_QUEUE || received->si_pid != getpid())
        bed_bad("origin of a signal", received->si_code, SI_QUEUE);
    if (value != (long)*handled)
        bed_bad("order of signals", value, *handled);
    if (f_handler(value) != value * 5 + 2)
        bed_bad("f_handler", value, 0);
    ++*handler_calls;
    __atomic_store_n(handled, value + 1, __ATOMIC_RELEASE);
}

static void *send(void *unused)
{
    while (bed_running()) {
        for (int burst = 0; burst < 20; burst++, ++*sent) {
            union sigval value = {.sival_int = *sent};
            while (pthread_sigqueue(receiver, SIGRTMIN, value)) /* EAGAIN: the queue is full */
                bed_nap_us(100);
        }
        while (BED_LOAD(*handled) != *sent)
            bed_nap_us(20);
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
    pthread_t sender;
    bed_open(argc, argv);
    sent = bed_counter("sent"), handled = bed_counter("handled");
    handler_calls = bed_counter("f_handler");
    volatile uint64_t *calls = bed_counter("f_main");
    receiver = pthread_self();
    sigaction(SIGRTMIN, &action, NULL);
    BED_ADD(bed->workers, 2);
    bed_threads(&sender, 1, send);
    bed_ready();
    while (bed_running() || BED_LOAD(*handled) != *sent)
        for (long i = 0; i < 200; i++, ++*calls)
            if (f_main(i) != i * 3 + 1)
                bed_bad("f_main", i, 0);
    pthread_join(sender, NULL);
    return bed_end();
}
