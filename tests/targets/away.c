// build: gcc -O1 -pthread away.c
// f_called is called by one thread; what calls f_gate from there waits in it until go=1 is poked into
// `opened`. how=0: as it is; 1: behind a page of its stack that is locked, so that the kernel splits the
// mapping; 2: on a stack of its own, switched to by swapcontext; 3: below nine megabytes of stack.
#include "bed.h"
#include <ucontext.h>

static volatile long opened, how;
static volatile uint64_t *called, *waiting;
static ucontext_t back, there;

static void wait_at_gate(void)
{
    ++*waiting;
    while (!opened && !BED_LOAD(bed->stop))
        bed_nap_us(500);
}

__attribute__((noipa)) static void below_a_locked_page(void)
{
    volatile char room[32768];
    memset((char *)room, 1, sizeof room);
    void *page = (void *)(((uintptr_t)room + 16384) & ~4095ul);
    if (mlock(page, 4096))
        bed_bad("mlock", 0, 1);
    wait_at_gate();
    munlock(page, 4096);
}

__attribute__((noipa)) static void far_below(void)
{
    volatile char *room = __builtin_alloca(9l << 20);
    room[0] = 1;
    wait_at_gate();
    room[1] = room[0];
}

static void on_its_own(void)
{
    wait_at_gate();
    swapcontext(&there, &back);
}

static void on_another_stack(void)
{
    static char stack[65536];
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &back;
    makecontext(&there, on_its_own, 0);
    swapcontext(&back, &there);
}

__attribute__((noipa)) long f_gate(long x)
{
    void (*const ways[])(void) = {wait_at_gate, below_a_locked_page, on_another_stack, far_below};
    ways[how]();
    return x + 1;
}

__attribute__((noipa)) void f_open(void) { opened = 1; }

__attribute__((noipa)) long f_called(long x) { return x * 3 + 1; }

static void *work(void *unused)
{
    for (long i = 0; bed_running(); i++) {
        if (f_called(i) != i * 3 + 1)
            bed_bad("f_called", i, 0);
        ++*called;
        bed_nap_us(100);
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    pthread_attr_t attributes;
    bed_open(argc, argv);
    how = bed_number("how", 0);
    called = bed_counter("f_called");
    waiting = bed_counter("waiting");
    bed_enter();
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64l << 20);
    pthread_create(&thread, &attributes, work, NULL);
    bed_ready();
    bed_await_stop();
    opened = 1;
    pthread_join(thread, NULL);
    return bed_end();
}
