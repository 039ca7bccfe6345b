// build: gcc -O2 -fcf-protection=none -fno-builtin -pthread ifuncs.c
// Calls indirect functions: its own f_chosen, which its resolver makes f_second, and the C
// library's strspn, of which only that knows the code. pause_us=0
#include "bed.h"

__attribute__((noinline)) static int f_first(int x) { return x * 3 + bed->stop; }
__attribute__((noinline)) static int f_second(int x) { return x * 5 + bed->stop * 0; }
static int (*choose(void))(int) { return getpid() ? f_second : f_first; }
int f_chosen(int) __attribute__((ifunc("choose")));

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    bed_enter();
    volatile uint64_t *chosen = bed_counter("f_chosen"), *spans = bed_counter("strspn");
    long pause_us = bed_number("pause_us", 0);
    bed_ready();
    while (bed_running()) {
        for (int i = 0; i < 50; i++, ++*chosen)
            if (f_chosen(i) != i * 5)
                bed_bad("f_chosen", i, 0);
        if (strspn("aabbc", "ab") != 4)
            bed_bad("strspn", 0, 4);
        ++*spans;
        bed_nap_us(pause_us);
    }
    bed_leave();
    return bed_end();
}
