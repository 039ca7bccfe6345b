// build: gcc -O2 -fcf-protection=none -pthread forms.c check.S
// Calls generated functions (tests/support/forms.py, linked in) with every register loaded, and
// compares what they leave in all registers with what they left before anybody traced them.
// threads=2
#include "check.h"

struct form {
    const char *name;
    void (*call)(void);
};
extern const struct form forms[] __attribute__((weak)); /* ends with zeros; none by itself */

enum { FORMS = 4096, SEEDS = 4 };
static uint64_t expected[FORMS][SEEDS];

static uint64_t outcome(const struct form *form, int seed)
{
    struct registers want, got;
    check_fill(&want, 0x9e3779b97f4a7c15u * (seed + 1));
    memset(&got, 0, sizeof got);
    check_call(form->call, &want, &got, check_vector_bytes());
    got.flags &= CHECKED_FLAGS;
    uint64_t hash = 14695981039346656037u;
    for (unsigned i = 0; i < sizeof got / 8; i++)
        hash = (hash ^ ((uint64_t *)&got)[i]) * 1099511628211u;
    return hash;
}

static void *work(void *index)
{
    volatile uint64_t *rounds = bed_counter("rounds");
    (void)index;
    while (bed_running()) {
        int seed = *rounds % SEEDS;
        for (int i = 0; forms && forms[i].call; i++)
            if (outcome(&forms[i], seed) != expected[i][seed])
                bed_bad(forms[i].name, outcome(&forms[i], seed), expected[i][seed]);
        ++*rounds;
    }
    bed_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    static pthread_t threads[64];
    bed_open(argc, argv);
    long n = bed_number("threads", 2);
    for (int i = 0; forms && forms[i].call; i++)
        for (int seed = 0; seed < SEEDS; seed++)
            expected[i][seed] = outcome(&forms[i], seed);
    for (long i = 0; i < n; i++)
        bed_enter();
    bed_threads(threads, n, work);
    bed_ready();
    bed_await_stop();
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
