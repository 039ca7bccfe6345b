// build: gcc -O2 -fcf-protection=none -pthread reopen.c -ldl
// Calls f_main all the time, and f_library of library=PATH while that is open. Each SIGUSR1
// closes the library by dlclose or opens it again; opens and closes count.
#include "bed.h"
#include <dlfcn.h>

static volatile sig_atomic_t wanted = 1;

__attribute__((noipa)) long f_main(long x) { return x * 5 + 2; }

static void on_signal(int number)
{
    (void)number;
    wanted = !wanted;
}

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    bed_enter();
    volatile uint64_t *calls = bed_counter("f_main"), *library_calls = bed_counter("f_library");
    volatile uint64_t *opens = bed_counter("opens"), *closes = bed_counter("closes");
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    void *library = NULL;
    long (*function)(long) = NULL;
    signal(SIGUSR1, on_signal);
    for (volatile long i = 0; bed_running(); i++) {
        if (wanted && !library) {
            library = dlopen(bed_text("library", "./libdso.so"), RTLD_NOW);
            function = library ? (long (*)(long))dlsym(library, "f_library") : NULL;
            if (!function) {
                bed_bad("dlopen", 0, 1);
                break;
            }
            ++*opens;
            bed_ready();
        } else if (!wanted && library) {
            if (dlclose(library))
                bed_bad("dlclose", 1, 0);
            library = NULL;
            ++*closes;
        }
        if (f_main(i) != i * 5 + 2)
            bed_bad("f_main", i, 0);
        ++*calls;
        if (library) {
            if (function(i) != i * 11 + 6)
                bed_bad("f_library", i, 0);
            ++*library_calls;
        }
        bed_nap_us(200);
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    return bed_end();
}
