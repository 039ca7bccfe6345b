// build: gcc -O2 -fcf-protection=none -pthread sealed.c
// Seals its code and that of its libraries (mseal, Linux 6.10), then calls f_sealed. The counter
// skip says that this kernel does not know mseal.
#include "bed.h"
#include <sys/syscall.h>
#include <unistd.h>

#define NR_MSEAL 462

__attribute__((noipa)) long f_sealed(long x) { return x * 3 + 1; }

static int seal_code(void)
{
    char line[512], perms[5];
    unsigned long start, end;
    FILE *maps = fopen("/proc/self/maps", "r");
    int failed = !maps;
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %4s", &start, &end, perms) == 3 && perms[2] == 'x' &&
            strchr(line, '/'))
            failed |= syscall(NR_MSEAL, start, end - start, 0) != 0;
    if (maps)
        fclose(maps);
    return failed;
}

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    bed_enter();
    volatile uint64_t *calls = bed_counter("f_sealed"), *skip = bed_counter("skip");
    *skip = seal_code();
    bed_ready();
    for (volatile long i = 0; bed_running(); i++) {
        if (f_sealed(i) != i * 3 + 1)
            bed_bad("f_sealed", i, 0);
        ++*calls;
        bed_nap_us(200);
    }
    bed_leave();
    return bed_end();
}
