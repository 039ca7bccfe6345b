// build: gcc -O2 -fcf-protection=none -pthread execloop.c
// Replaces itself by exec every ms=20, again and again, with a thread beside at that moment; each
// image calls f_image. READY comes from the first image; execs counts the images. It ends at stop.
#include "bed.h"

__attribute__((noipa)) long f_image(long x) { return x * 3 + 1; }

/* The counter of that name, made by an image before us or by us. */
static volatile uint64_t *kept_counter(const char *name)
{
    for (unsigned i = 0; i < BED_LOAD(bed->nr_slots); i++)
        if (!strcmp(bed->slots[i].name, name))
            return (volatile uint64_t *)&bed->slots[i].value;
    return bed_counter(name);
}

static void *beside(void *unused)
{
    for (;;)
        pause();
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    bed_open(argc, argv);
    volatile uint64_t *calls = kept_counter("f_image"), *execs = kept_counter("execs");
    long end = bed_now_ns() + bed_number("ms", 20) * 1000000L;
    bed_threads(&thread, 1, beside);
    if (!(*execs)++)
        bed_ready();
    if (!getenv("FENTRY_BED"))
        return bed_end(); /* by hand: one image, for the page would not outlive it */
    while (bed_now_ns() < end) {
        for (long i = 0; i < 100; i++, ++*calls)
            if (f_image(i) != i * 3 + 1)
                bed_bad("f_image", i, 0);
        bed_nap_us(500);
    }
    if (BED_LOAD(bed->stop))
        return bed_end();
    execv("/proc/self/exe", argv);
    bed_bad("exec", errno, 0);
    return bed_end();
}
