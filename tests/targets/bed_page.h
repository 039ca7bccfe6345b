/* The page a target shares with its test: a gate, an end, and counters that survive the target.
 * tests/support/control.py reads and writes the same layout; all words are little endian.
 *   0 magic  4 ready  8 stop  12 hold  16 parked  20 workers  24 nr_slots  28 wish  32 bad
 *   64 + 64 * i: one counter, 48 bytes of name, then its 64-bit value; equal names are summed. */
#pragma once
#define BED_MAGIC 0x64656266u /* "fbed" */
#define BED_BYTES 65536
#define BED_SLOTS ((BED_BYTES - 64) / 64)

struct bed_slot {
    char name[48];
    unsigned long value;
    unsigned long unused;
};

struct bed_page {
    unsigned magic, ready, stop, hold, parked, workers, nr_slots, wish;
    unsigned long bad, reserved[3];
    struct bed_slot slots[BED_SLOTS];
};
