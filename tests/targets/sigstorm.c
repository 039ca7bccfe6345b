// build: gcc -O2 -fcf-protection=none -pthread sigstorm.c
// Two timers (SIGALRM, SIGPROF) fire at hz=10000 while f_main is called; the handler, on an
// alternate stack of stack=65536 bytes, calls f_handler. jump=1: every 16th SIGALRM leaves its
// handler by siglongjmp.
// Counts: f_main = calls begun, done.f_main = calls ended (less, only with jump=1),
// f_handler, signals = handled, expirations = handled + overruns told by the kernel.
#include "bed.h"
#include <setjmp.h>

static volatile uint64_t *handler_calls, *signals, *expirations, *jumps;
static char alternate[65536];
static long alarms;
static sigjmp_buf back;
static volatile sig_atomic_t can_jump;
static timer_t timers[2];

__attribute__((noipa)) long f_main(long x) { return x * 3 + 1; }
__attribute__((noipa)) long f_handler(long x) { return x * 5 + 2; }

static void on_timer(int number, siginfo_t *received, void *context)
{
    char here;
    uintptr_t under = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RSP];
    if (!BED_LOAD(bed->hold)) { /* at the gate handlers call nothing that is counted, either */
        if (f_handler(number) != number * 5 + 2)
            bed_bad("f_handler", number, 0);
        ++*handler_calls;
    }
    ++*signals;
    *expirations += 1 + received->si_overrun;
    if ((uintptr_t)&here % 4096 == 0)
        bed_bad("stack", 0, 0);
    /* Only out of what ran on the main stack: siglongjmp lets signals in while it is on this one,
     * where they would pile up. */
    if (can_jump && number == SIGALRM && ++alarms % 16 == 0 && !BED_LOAD(bed->hold)
        && under - (uintptr_t)alternate >= sizeof alternate) {
        ++*jumps;
        siglongjmp(back, 1);
    }
}

static void start_timer(timer_t *timer, int number, long hz)
{
    struct sigaction action = {.sa_sigaction = on_timer};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = number};
    struct itimerspec every = {{0, 1000000000 / hz}, {0, 1000000000 / hz}};
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigaddset(&action.sa_mask, SIGALRM);
    sigaddset(&action.sa_mask, SIGPROF);
    sigaction(number, &action, NULL);
    if (timer_create(CLOCK_MONOTONIC, &event, timer) || timer_settime(*timer, 0, &every, NULL))
        bed_bad("timer", errno, 0);
}

int main(int argc, char **argv)
{
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct itimerspec never = {{0, 0}, {0, 0}};
    bed_open(argc, argv);
    bed_enter();
    stack.ss_size = bed_number("stack", sizeof alternate);
    volatile uint64_t *begun = bed_counter("f_main"), *done = bed_counter("done.f_main");
    handler_calls = bed_counter("f_handler");
    signals = bed_counter("signals");
    expirations = bed_counter("expirations");
    jumps = bed_counter("jumps");
    sigaltstack(&stack, NULL);
    start_timer(&timers[0], SIGALRM, bed_number("hz", 10000));
    start_timer(&timers[1], SIGPROF, bed_number("hz", 10000));
    bed_ready();
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    long jump = bed_number("jump", 0);
    while (bed_running()) {
        if (!sigsetjmp(back, 1))
            can_jump = jump;
        for (long i = 0; i < 1000; i++) {
            ++*begun; /* single writer; a jump comes after this or before it, never inside */
            if (f_main(i) != i * 3 + 1)
                bed_bad("f_main", i, 0);
            ++*done;
        }
        can_jump = 0;
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    timer_settime(timers[0], 0, &never, NULL);
    timer_settime(timers[1], 0, &never, NULL);
    if (!jump && *begun != *done)
        bed_bad("calls", *done, *begun);
    return bed_end();
}
