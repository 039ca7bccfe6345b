// build: gcc -O2 -fcf-protection=none -pthread dso.c -ldl
// Opens library=PATH by dlopen, calls f_library calls=100 times, closes it; and again.
// keep=1 opens it once and goes on calling. loads = times opened; each load also calls f_library
// once in its constructor, not counted in f_library here.
#include "bed.h"
#include <dlfcn.h>

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    bed_enter();
    volatile uint64_t *calls = bed_counter("f_library"), *loads = bed_counter("loads");
    const char *path = bed_text("library", "./libdso.so");
    long count = bed_number("calls", 100), keep = bed_number("keep", 0);
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    void *library = NULL;
    long (*function)(long) = NULL;
    bed_ready();
    while (bed_running()) {
        if (!library) {
            library = dlopen(path, RTLD_NOW);
            function = library ? (long (*)(long))dlsym(library, "f_library") : NULL;
            if (!function) {
                dprintf(2, "%s\n", dlerror());
                bed_bad("dlopen", 0, 1);
                break;
            }
            ++*loads;
        }
        for (long i = 0; i < count; i++, ++*calls)
            if (function(i) != i * 11 + 6)
                bed_bad("f_library", i, 0);
        if (!keep) {
            if (dlclose(library))
                bed_bad("dlclose", 1, 0);
            library = NULL;
        }
        bed_nap_us(bed_number("pause_us", 200));
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    return bed_end();
}
