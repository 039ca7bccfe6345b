// build: gcc -O2 -fcf-protection=none -fno-stack-protector -pthread newborn.c
// A thread as pthread_create leaves it before it has registered its rseq area: thread pointer and
// tid in place (struct pthread of glibc: self at 0 and 16, tid at 0x2d0), the area full of zeros.
// It and main call f_born without end.
#include "bed.h"
#include <sched.h>
#include <sys/mman.h>

static char block[1 << 14] __attribute__((aligned(64)));
static char stack[1 << 16] __attribute__((aligned(16)));
static volatile uint64_t *of_thread;
static volatile int is_over;

__attribute__((noipa)) long f_born(long x) { return x * 5 + x / 3; }

static int work(void *unused)
{
    cpu_set_t set = {{1}};
    long result = SYS_sched_setaffinity;
    __asm__ volatile("syscall" : "+a"(result) : "D"(0L), "S"(sizeof set), "d"(&set)
                     : "rcx", "r11", "memory");
    (void)unused;
    while (!BED_LOAD(bed->stop)) {
        while (BED_LOAD(bed->hold) && !BED_LOAD(bed->stop)) {
            BED_ADD(bed->parked, 1);
            while (BED_LOAD(bed->hold) && !BED_LOAD(bed->stop)) {
            }
            BED_ADD(bed->parked, -1);
        }
        for (long i = 0; i < 100; i++, ++*of_thread)
            f_born(i);
    }
    is_over = 1;
    __asm__ volatile("syscall" : : "a"((long)SYS_exit), "D"(0L) : "rcx", "r11", "memory");
    __builtin_unreachable();
}

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    of_thread = bed_counter("f_born");
    volatile uint64_t *mine = bed_counter("f_born");
    char *pointer = block + sizeof block / 2;
    *(char **)pointer = *(char **)(pointer + 16) = pointer;
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                CLONE_SETTLS | CLONE_PARENT_SETTID;
    if (clone(work, stack + sizeof stack - 64, flags, NULL, pointer + 0x2d0, pointer) < 0)
        bed_bad("clone", -1, errno);
    bed_enter();
    bed_enter();
    bed_ready();
    while (bed_running())
        for (long i = 0; i < 100; i++, ++*mine)
            f_born(i);
    while (!is_over)
        sched_yield();
    return bed_end();
}
