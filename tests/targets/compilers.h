/* What generated C functions (tests/support/c_programs.py) and compilers.c have in common. */
#pragma once
#include "bed_page.h"
#include <stdint.h>

struct form {
    const char *name;
    uint64_t (*call)(uint64_t); /* counts the calls that it makes, and makes them */
};
extern const struct form forms[];      /* ends with zeros */
extern const char *const slot_names[]; /* of the counters, ends with a zero */
extern struct bed_page *page;
