// build: gcc -O2 -pthread compilers.c
// Calls generated C functions (tests/support/c_programs.py, linked in) for some numbers, round by
// round, and compares each result with that of a round before anybody traced. Counts what the
// hooks see that compilers put in: `hooked` is the entries to generated functions.
// xray=1: lets XRay patch its sleds, and counts by its handler.
#include "bed.h"
#include "compilers.h"

enum { FORMS = 1024, SEEDS = 4 };
static uint64_t expected[FORMS][SEEDS];
static volatile uint64_t *hooked, unused;
static volatile int inside;
struct bed_page *page;

/* Without the linked functions there is nothing to do. */
extern const struct form forms[] __attribute__((weak));
extern const char *const slot_names[] __attribute__((weak));

void note_entry(void) { hooked[0] += inside; }
void __cyg_profile_func_enter(void *f, void *site) { (void)f, (void)site, note_entry(); }
void __cyg_profile_func_exit(void *f, void *site) { (void)f, (void)site; }
void note_sled(int32_t id, int kind) { (void)id, hooked[0] += inside && kind == 0; }
int __xray_set_handler(void (*handler)(int32_t, int)) __attribute__((weak));
int __xray_patch(void) __attribute__((weak));

__asm__(".globl __fentry__\n"
        ".type __fentry__, @function\n"
        "__fentry__: endbr64\n"
        "    push %rax\n"
        "    mov hooked(%rip), %rax\n"
        "    cmpl $0, inside(%rip)\n"
        "    je 1f\n"
        "    incq (%rax)\n"
        "1:  pop %rax\n"
        "    ret\n"
        ".size __fentry__, .-__fentry__\n");

static void a_round(int seed, int is_first)
{
    for (int i = 0; forms && forms[i].call; i++) {
        inside = 1;
        uint64_t found = forms[i].call(0x9e3779b97f4a7c15u * (seed + 1) >> seed * 8);
        inside = 0;
        if (is_first)
            expected[i][seed] = found;
        else if (found != expected[i][seed])
            bed_bad(forms[i].name, found, expected[i][seed]);
    }
}

static void *work(void *nothing)
{
    for (int seed = 0; seed < SEEDS; seed++)
        a_round(seed, 1);
    volatile uint64_t *rounds = bed_counter("rounds");
    bed_enter();
    bed_ready();
    while (bed_running()) {
        a_round(*rounds % SEEDS, 0);
        ++*rounds;
    }
    bed_leave();
    return nothing;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    bed_open(argc, argv);
    page = bed;
    hooked = &unused;
    for (int i = 0; slot_names && slot_names[i]; i++)
        bed_counter(slot_names[i]);
    hooked = bed_counter("hooked");
    if (bed_number("xray", 0) && (__xray_set_handler(note_sled) != 1 || __xray_patch() != 1))
        bed_bad("xray", 0, 1); /* true, and XRayPatchingStatus::SUCCESS */
    bed_threads(&thread, 1, work);
    bed_await_stop();
    pthread_join(thread, NULL);
    return bed_end();
}
