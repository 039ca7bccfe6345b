// build: gcc -O2 -fcf-protection=none -pthread cancel.c
// Threads that may be cancelled at any instruction call f_cancelled; the main thread cancels and
// joins them, again and again. threads=4. begun >= f_cancelled = calls that returned; each thread's
// cleanup handler must run: cleanups = cancels = threads made.
#include "bed.h"

static volatile uint64_t *begun[64], *ended[64], *cleanups, *cancels;

__attribute__((noipa)) long f_cancelled(long x) { return x * 3 + 1; }

static void clean_up(void *unused)
{
    (void)unused;
    BED_ADD(*cleanups, 1);
}

static void *work(void *index)
{
    long i = (long)index, unused;
    pthread_cleanup_push(clean_up, &unused);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    for (long x = 0;; x++) {
        ++*begun[i]; /* one instruction, as the next: nothing of them is ever half done */
        if (f_cancelled(x) != x * 3 + 1)
            bed_bad("f_cancelled", x, 0);
        ++*ended[i];
    }
    pthread_cleanup_pop(0);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    void *result;
    bed_open(argc, argv);
    bed_enter();
    long n = bed_number("threads", 4);
    cancels = bed_counter("cancels"), cleanups = bed_counter("cleanups");
    for (long i = 0; i < n; i++)
        begun[i] = bed_counter("begun"), ended[i] = bed_counter("f_cancelled");
    bed_ready();
    while (bed_running()) {
        uint64_t before = *ended[0];
        bed_threads(threads, n, work);
        while (*ended[0] == before)
            bed_nap_us(50);
        for (long i = 0; i < n; i++, ++*cancels) {
            pthread_cancel(threads[i]);
            pthread_join(threads[i], &result);
            if (result != PTHREAD_CANCELED)
                bed_bad("pthread_join", (long)result, -1);
        }
        if (*cleanups != *cancels)
            bed_bad("cleanup handlers", *cleanups, *cancels);
    }
    return bed_end();
}
