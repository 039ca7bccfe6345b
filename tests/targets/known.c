// build: gcc -O2 -fcf-protection=none -pthread known.c
// Threads known by name, w0 w1 ...: each calls f_one and f_two ten times a round, counts the rounds'
// calls in calls.w0 and tells its tid in tid.w0. threads=4 pause_us=200 by_worker=0
// The test's wish is how many more threads there are: x1 x2 ..., never a name twice, made by the main
// thread, or by w0 if by_worker=1; the last one made is the first to be joined. made counts
// them. At wish 1000 w1 calls itself renamed.
#include "bed.h"
#include <sys/prctl.h>

static long pause_us;
static int by_worker;
static volatile uint64_t *made;

__attribute__((noipa)) long f_one(long x) { return x * 3 + 1; }
__attribute__((noipa)) long f_two(long x) { return x * 5 + x / 3; }

struct one {
    pthread_t thread;
    char name[24];
    unsigned stop;
};
static struct one workers[32], extras[32];

static void *work(void *);

static void make_or_join(unsigned wish)
{
    static unsigned born;
    while (*made < wish && wish < 32) {
        struct one *it = &extras[*made];
        it->stop = 0;
        snprintf(it->name, sizeof it->name, "x%u", ++born);
        bed_enter();
        if (pthread_create(&it->thread, NULL, work, it))
            bed_bad("pthread_create", errno, 0);
        ++*made;
    }
    while (*made > wish) {
        struct one *it = &extras[*made - 1];
        __atomic_store_n(&it->stop, 1, __ATOMIC_RELEASE);
        pthread_join(it->thread, NULL);
        --*made;
    }
}

static void *work(void *argument)
{
    struct one *me = argument;
    char text[32];
    prctl(PR_SET_NAME, me->name);
    snprintf(text, sizeof text, "calls.%s", me->name);
    volatile uint64_t *calls = bed_counter(text);
    snprintf(text, sizeof text, "tid.%s", me->name);
    *bed_counter(text) = syscall(SYS_gettid);
    while (bed_running() && !BED_LOAD(me->stop)) {
        for (long i = 0; i < 10; i++) {
            if (f_one(i) != i * 3 + 1 || f_two(i) != i * 5 + i / 3)
                bed_bad("a sum", i, 0);
            ++*calls;
        }
        if (by_worker && me == &workers[0])
            make_or_join(BED_LOAD(bed->wish));
        if (me == &workers[1] && BED_LOAD(bed->wish) == 1000)
            prctl(PR_SET_NAME, "renamed");
        bed_nap_us(pause_us);
    }
    bed_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    bed_open(argc, argv);
    long n = bed_number("threads", 4);
    pause_us = bed_number("pause_us", 200);
    by_worker = bed_number("by_worker", 0);
    made = bed_counter("made");
    for (long i = 0; i < n; i++) {
        snprintf(workers[i].name, sizeof workers[i].name, "w%u", (unsigned)i);
        bed_enter();
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            bed_bad("pthread_create", errno, 0);
    }
    bed_ready();
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    while (!BED_LOAD(bed->stop)) {
        if (!by_worker)
            make_or_join(BED_LOAD(bed->wish));
        bed_nap_us(500);
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            __atomic_store_n(&bed->stop, 1, __ATOMIC_RELEASE);
    }
    for (long i = 0; i < n; i++)
        pthread_join(workers[i].thread, NULL);
    make_or_join(0);
    return bed_end();
}
