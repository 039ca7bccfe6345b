// build: gcc -O2 -fcf-protection=none -pthread sigtrap.c
// A program with breakpoints of its own: int3 and raise(SIGTRAP), handled by its own handler, and
// SIGTRAPs sent while the signal is blocked. Counts: f_trapped (one a signal), int3, raised.
#include "bed.h"
#include <ucontext.h>

static volatile uint64_t *int3, *raised, *calls;
extern const char behind_int3[];

__attribute__((noipa)) long f_trapped(long x) { return x * 3 + 1; }

static void on_trap(int number, siginfo_t *received, void *context)
{
    long rip = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    if (f_trapped(number) != number * 3 + 1)
        bed_bad("f_trapped", number, 0);
    ++*calls;
    if (received->si_code == SI_TKILL)
        ++*raised;
    else if (received->si_code == SI_KERNEL && rip == (long)behind_int3)
        ++*int3;
    else
        bed_bad("SIGTRAP from elsewhere", received->si_code, rip);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    uint64_t rounds = 0;
    sigset_t trap;
    bed_open(argc, argv);
    bed_enter();
    calls = bed_counter("f_trapped"), int3 = bed_counter("int3"), raised = bed_counter("raised");
    sigaction(SIGTRAP, &action, NULL);
    sigemptyset(&trap);
    sigaddset(&trap, SIGTRAP);
    bed_ready();
    while (bed_running()) {
        asm volatile(".globl behind_int3; int3; behind_int3:" ::: "memory");
        raise(SIGTRAP);
        sigprocmask(SIG_BLOCK, &trap, NULL);
        raise(SIGTRAP);
        bed_nap_us(50);
        sigprocmask(SIG_UNBLOCK, &trap, NULL);
        if (*int3 != ++rounds || *raised != 2 * rounds)
            bed_bad("SIGTRAPs handled", *int3 + *raised, 3 * rounds);
    }
    return bed_end();
}
