/* What every target needs: arguments name=value, the control page, the gate, the END line.
 * All of it is static inline, so that no symbol of the bed can be traced by accident. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "bed_page.h"

#define BED static inline __attribute__((always_inline, unused))
#define BED_LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define BED_ADD(word, by) __atomic_add_fetch(&(word), (by), __ATOMIC_ACQ_REL)

static struct bed_page *bed;
static char **bed_arguments;
static int bed_argument_count;

/* The number given as name=value, or `otherwise`. */
BED const char *bed_text(const char *name, const char *otherwise)
{
    size_t length = strlen(name);
    for (int i = 1; i < bed_argument_count; i++)
        if (!strncmp(bed_arguments[i], name, length) && bed_arguments[i][length] == '=')
            return bed_arguments[i] + length + 1;
    return otherwise;
}

BED long bed_number(const char *name, long otherwise)
{
    const char *text = bed_text(name, NULL);
    return text ? strtol(text, NULL, 0) : otherwise;
}

/* Maps the page named by FENTRY_BED; by hand, without it, the target ends after seconds=N. */
BED void bed_open(int argc, char **argv)
{
    const char *path = getenv("FENTRY_BED");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    bed_argument_count = argc;
    bed_arguments = argv;
    if (path && fd < 0) {
        perror(path);
        _exit(99);
    }
    bed = (struct bed_page *)mmap(NULL, BED_BYTES, PROT_READ | PROT_WRITE,
                                  fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
    if (bed == MAP_FAILED)
        _exit(98);
    if (fd >= 0)
        close(fd);
    else
        bed->magic = BED_MAGIC;
    setvbuf(stdout, NULL, _IOLBF, 4096);
}

/* A counter of its own for the caller (one writer); the test sums equal names. */
BED volatile uint64_t *bed_counter(const char *name)
{
    unsigned i = __atomic_fetch_add(&bed->nr_slots, 1, __ATOMIC_ACQ_REL);
    if (i >= BED_SLOTS)
        _exit(97);
    for (unsigned c = 1; name[0] && name[c] && c < sizeof bed->slots[i].name - 1; c++)
        bed->slots[i].name[c] = name[c];
    /* A name is there when its first letter is. */
    __atomic_store_n(&bed->slots[i].name[0], name[0], __ATOMIC_RELEASE);
    return (volatile uint64_t *)&bed->slots[i].value;
}

BED void bed_bad(const char *what, long found, long expected)
{
    if (BED_ADD(bed->bad, 1) < 20)
        dprintf(2, "BAD %s: found %#lx, expected %#lx\n", what, found, expected);
}

BED void bed_ready(void)
{
    __atomic_store_n(&bed->ready, 1, __ATOMIC_RELEASE);
    puts("READY");
}

BED long bed_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

/* True while there is work; waits at the gate as long as the test holds it. Call per round. */
BED int bed_running(void)
{
    while (BED_LOAD(bed->hold) && !BED_LOAD(bed->stop)) {
        BED_ADD(bed->parked, 1);
        syscall(SYS_futex, &bed->hold, 0 /* FUTEX_WAIT */, 1, NULL, NULL, 0);
        BED_ADD(bed->parked, -1);
    }
    return !BED_LOAD(bed->stop);
}

BED void bed_enter(void) { BED_ADD(bed->workers, 1); }
BED void bed_leave(void) { BED_ADD(bed->workers, -1); }

BED void bed_nap_us(long us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    if (us)
        while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR) {
        }
}

/* Without a test at the other end: wait seconds=N (default 3), then say stop. */
BED void bed_await_stop(void)
{
    if (!getenv("FENTRY_BED")) {
        bed_nap_us(bed_number("seconds", 3) * 1000000);
        __atomic_store_n(&bed->stop, 1, __ATOMIC_RELEASE);
    }
    while (!BED_LOAD(bed->stop))
        syscall(SYS_futex, &bed->stop, 0 /* FUTEX_WAIT */, 0, NULL, NULL, 0);
}

/* Prints END with every counter, equal names summed; the exit code says whether all was well. */
BED int bed_end(void)
{
    unsigned n = BED_LOAD(bed->nr_slots);
    printf("END bad=%lu", bed->bad);
    for (unsigned i = 0; i < n; i++) {
        unsigned long sum = 0;
        int first = 1;
        for (unsigned j = 0; j < n; j++)
            if (!strcmp(bed->slots[j].name, bed->slots[i].name)) {
                first &= j >= i;
                sum += bed->slots[j].value;
            }
        if (first)
            printf(" %s=%lu", bed->slots[i].name, sum);
    }
    putchar('\n');
    fflush(stdout);
    return bed->bad != 0;
}

/* Starts `n` threads with small stacks; the caller joins them. */
BED void bed_threads(pthread_t *threads, long n, void *(*work)(void *))
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    for (long i = 0; i < n; i++)
        if (pthread_create(&threads[i], &attributes, work, (void *)i))
            bed_bad("pthread_create", i, n);
    pthread_attr_destroy(&attributes);
}
