// build: gcc -O2 -fcf-protection=none -pthread exits.c
// Dies at call number at=1000 of f_last, how=exit|_exit|segv|kill|abort|thread (exit_group by
// another thread, in the middle of calls). The page has f_last, the number of calls completed.
#include "bed.h"

static volatile uint64_t *calls;
static const char *how;
static volatile int *volatile nowhere = (volatile int *)8;
static long at;

__attribute__((noipa)) long f_last(long x) { return x * 3 + 1; }

static void die(void)
{
    if (!strcmp(how, "exit"))
        exit(bed_end());
    if (!strcmp(how, "_exit"))
        _exit(3);
    if (!strcmp(how, "segv"))
        *nowhere = 1;
    if (!strcmp(how, "kill"))
        kill(getpid(), SIGKILL);
    abort();
}

static void *end_group(void *unused)
{
    while (*calls < (uint64_t)at)
        bed_nap_us(100);
    _exit(4);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    bed_open(argc, argv);
    bed_enter();
    calls = bed_counter("f_last");
    how = bed_text("how", "exit");
    at = bed_number("at", 1000);
    bed_ready();
    if (!bed_running()) /* the test holds the gate until it has attached */
        return bed_end();
    if (!strcmp(how, "thread"))
        bed_threads(&thread, 1, end_group);
    for (long i = 0; !BED_LOAD(bed->stop); i++) {
        if (f_last(i) != i * 3 + 1)
            bed_bad("f_last", i, 0);
        if ((long)++*calls == at && strcmp(how, "thread"))
            die();
    }
    return bed_end();
}
