/* A call with every register loaded before and stored after it; check.S has the layout. */
#pragma once
#include "bed.h"

struct registers {
    uint64_t gpr[15]; /* rax rbx rcx rdx rsi rdi rbp r8 .. r15; rsp is checked by surviving */
    uint64_t flags;
    uint8_t vectors[16][32]; /* ymm0-15, or the low halves */
};
_Static_assert(sizeof(struct registers) == 640, "check.S counts on it");

struct hot_entry {
    const char *name;
    void (*call)(void);
    const char *also; /* a second function that each such call runs, or 0 */
};
extern const struct hot_entry hot_table[]; /* ends with zeros */

void check_call(void (*call)(void), const struct registers *want, struct registers *got,
                long vector_bytes);

BED long check_vector_bytes(void) { return __builtin_cpu_supports("avx") ? 32 : 16; }

/* Arithmetic flags CF PF AF ZF SF OF and DF (SDM Vol. 1, 3.4.3), all together or at random. */
#define CHECKED_FLAGS 0xcd5u

/* Fills `want` with values that follow from the seed; returns the next seed. */
BED uint64_t check_fill(struct registers *want, uint64_t seed)
{
    uint64_t *words = (uint64_t *)want;
    for (unsigned i = 0; i < sizeof *want / 8; i++)
        words[i] = (seed = seed * 6364136223846793005u + 1442695040888963407u);
    uint64_t pick = seed >> 60;
    want->flags = pick < 2 ? 0 : pick < 4 ? CHECKED_FLAGS : (seed >> 20) & CHECKED_FLAGS;
    return seed;
}

BED void check_compare(const char *name, const struct registers *want, struct registers *got)
{
    long bytes = check_vector_bytes();
    got->flags &= CHECKED_FLAGS;
    for (int i = 0; i < 15; i++)
        if (got->gpr[i] != want->gpr[i]) {
            dprintf(2, "%s: register %d\n", name, i);
            bed_bad(name, got->gpr[i], want->gpr[i]);
        }
    if (got->flags != want->flags)
        bed_bad(name, got->flags, want->flags);
    for (int i = 0; i < 16; i++)
        if (memcmp(got->vectors[i], want->vectors[i], bytes))
            bed_bad("vector register", i, 0);
}
