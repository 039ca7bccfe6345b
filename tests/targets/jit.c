// build: gcc -O2 -fcf-protection=none -pthread jit.c
// Makes code at run time and rewrites it every round: in place, with the page writable only while
// it is written, and through a second mapping of a memfd; beside the program's own image, on both
// sides. The code calls and tail calls f_target; what it returns and what it consists of is checked.
#include "bed.h"

enum { PAGE = 4096, AREAS = 5 };
extern const char __executable_start[], _end[];

struct area {
    unsigned char *run, *write; /* the same memory; the second may be written */
    int flips;                  /* only while we ask for it */
};

__attribute__((noipa)) long f_target(long x) { return x * 3 + 1; }

static unsigned char *map_near(uintptr_t at, int step, int protection)
{   /* the first free page from `at` on, in direction `step` */
    for (;; at += step) {
        unsigned char *found = mmap((void *)at, PAGE, protection,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (found != MAP_FAILED)
            return found;
    }
}

static long emit(unsigned char *code, unsigned number, int tail)
{   /* add number to rdi, and call f_target: its length */
    static const unsigned char call[] = {0x53, 0xff, 0xd0, 0x5b, 0xc3}, jump[] = {0xff, 0xe0};
    unsigned char *end = code;
    uintptr_t target = (uintptr_t)f_target;
    memcpy(end, "\x48\x81\xc7", 3); /* add $number, %rdi */
    memcpy(end + 3, &number, 4);
    memcpy(end + 7, "\x48\xb8", 2); /* mov $f_target, %rax */
    memcpy(end + 9, &target, 8);
    end += 17;
    memcpy(end, tail ? jump : call, tail ? sizeof jump : sizeof call);
    return end + (tail ? sizeof jump : sizeof call) - code;
}

static void *work(void *index)
{
    static const int rwx = PROT_READ | PROT_WRITE | PROT_EXEC, rx = PROT_READ | PROT_EXEC;
    volatile uint64_t *calls = bed_counter("f_target"), *rounds = bed_counter("rounds");
    int memfd = memfd_create("code", MFD_CLOEXEC);
    if (ftruncate(memfd, PAGE))
        bed_bad("ftruncate", errno, 0);
    unsigned char *shared = mmap(NULL, PAGE, rx, MAP_SHARED, memfd, 0);
    unsigned char *view = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    uintptr_t first = (uintptr_t)__executable_start, behind = ((uintptr_t)_end + PAGE - 1) & -PAGE;
    struct area areas[AREAS] = {{0}};
    areas[0].run = map_near(first - PAGE, -PAGE, rwx);
    areas[1].run = map_near(behind, PAGE, rwx);
    areas[2].run = map_near(first - PAGE, -PAGE, rx);
    areas[3].run = map_near(behind, PAGE, rx);
    areas[4].run = shared;
    for (int i = 0; i < AREAS; i++) {
        areas[i].write = i == 4 ? view : areas[i].run;
        areas[i].flips = i == 2 || i == 3;
    }
    close(memfd);
    while (bed_running()) {
        for (int i = 0; i < AREAS; i++) {
            unsigned char code[64];
            unsigned number = *rounds * 7 + i;
            long size = emit(code, number, *rounds & 1);
            if (areas[i].flips)
                mprotect(areas[i].run, PAGE, PROT_READ | PROT_WRITE);
            memcpy(areas[i].write, code, size);
            if (areas[i].flips)
                mprotect(areas[i].run, PAGE, rx);
            long result = ((long (*)(long))areas[i].run)(1000), wanted = (1000 + number) * 3L + 1;
            ++*calls;
            if (result != wanted)
                bed_bad("result of made code", result, wanted);
            if (memcmp(areas[i].run, code, size))
                bed_bad("made code was changed", i, (long)areas[i].run);
        }
        ++*rounds;
        (void)index;
    }
    bed_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    static pthread_t threads[2];
    bed_open(argc, argv);
    for (int i = 0; i < 2; i++)
        bed_enter();
    bed_threads(threads, 2, work);
    bed_ready();
    bed_await_stop();
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
