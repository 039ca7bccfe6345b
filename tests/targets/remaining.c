// build: gcc -O2 -fcf-protection=none -pthread remaining.c
// Each thread waits once, ms=400, in one system call; the waits begin when the gate opens.
// us.NAME is how long it took, eintr.NAME whether it was interrupted, done counts those that ended.
// restart=0: the calls whose remaining time the kernel keeps; restart=1: the other ones.
#include "bed.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

static int quiet[2], epoll, ms;
static unsigned word;
static struct timespec whole;
static volatile uint64_t *done;
static struct epoll_event happened;

static const char *names[] = {"nanosleep", "clock_nanosleep", "poll", "ppoll", "select", "futex",
                              "epoll_wait", "sigtimedwait"};
enum { NR_WAITS = 8, NR_KEPT = 6 };

static long wait_once(long which)
{
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    struct pollfd quiet_one = {quiet[0], POLLIN, 0};
    sigset_t none; /* a set that nobody sends */
    sigemptyset(&none);
    switch (which) {
    case 0: return nanosleep(&whole, NULL);
    case 1: return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &whole, NULL);
    case 2: return poll(&quiet_one, 1, ms);
    case 3: return ppoll(&quiet_one, 1, &whole, NULL);
    case 4: return select(0, NULL, NULL, NULL, &tv);
    case 5: return syscall(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0, &whole, NULL, 0);
    case 6: return epoll_wait(epoll, &happened, 1, ms);
    default: return sigtimedwait(&none, NULL, &whole);
    }
}

static void *work(void *index)
{
    char name[48];
    snprintf(name, sizeof name, "eintr.%s", names[(long)index]);
    volatile uint64_t *interrupted = bed_counter(name);
    snprintf(name, sizeof name, "us.%s", names[(long)index]);
    volatile uint64_t *us = bed_counter(name);
    if (((long)index >= NR_KEPT) == bed_number("restart", 0) && bed_running()) {
        long start = bed_now_ns();
        *interrupted = wait_once((long)index) < 0 && errno == EINTR;
        *us = (bed_now_ns() - start) / 1000;
        BED_ADD(*done, 1);
    }
    bed_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    static pthread_t threads[NR_WAITS];
    bed_open(argc, argv);
    done = bed_counter("done");
    ms = bed_number("ms", 400);
    whole = (struct timespec){ms / 1000, ms % 1000 * 1000000L};
    epoll = epoll_create1(0);
    if (pipe(quiet) || epoll < 0)
        bed_bad("pipe", errno, 0);
    BED_ADD(bed->workers, NR_WAITS);
    bed_threads(threads, NR_WAITS, work);
    bed_ready();
    bed_await_stop();
    for (int i = 0; i < NR_WAITS; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
