// build: gcc -O2 -fcf-protection=none -pthread lives.c
// What runs where little is set up: a worker makes and joins threads without end; each calls f_alive,
// allocates, copies, writes and asks for the time, switches to a context of its own and back
// (f_context), makes a raw thread on its thread pointer (f_raw), and ends: f_last is called by the
// destructor of a thread-local object, f_late by that of a key. The worker takes the name
// "_life-<wish>" whenever it is told to wish. xom=1: f_hidden lies on a page that can only be executed.
#include "bed.h"
#include <sched.h>
#include <sys/prctl.h>
#include <ucontext.h>

static volatile uint64_t *lives;
static pthread_key_t key;
static int null;
static long rounds;

__attribute__((noipa)) long f_alive(long x) { return x * 3 + 1; }
__attribute__((noipa)) long f_context(long x) { return x * 5 + 1; }
__attribute__((noipa)) long f_raw(long x) { return x * 7 + 1; }
__attribute__((noipa)) void f_last(void *word) { *(long *)word += 11; }
__attribute__((noipa)) void f_late(void *word) { *(long *)word += 13; }
__attribute__((noipa, section(".text.hidden"), aligned(4096))) long f_hidden(long x) { return x + 17; }
__attribute__((used, section(".text.hidden"), aligned(4096))) void after_hidden(void) {}

int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *handle);
extern void *__dso_handle;

struct contexts { ucontext_t out, in; long x; };

static void in_context(unsigned low, unsigned high)
{
    struct contexts *c = (struct contexts *)((uint64_t)high << 32 | low);
    for (;;) {
        c->x = f_context(c->x);
        swapcontext(&c->in, &c->out);
    }
}

static void switch_contexts(char *stack, size_t bytes)
{
    struct contexts c = {.x = 0};
    uint64_t address = (uint64_t)&c;
    getcontext(&c.in);
    c.in.uc_stack.ss_sp = stack;
    c.in.uc_stack.ss_size = bytes;
    makecontext(&c.in, (void (*)(void))in_context, 2, (unsigned)address, (unsigned)(address >> 32));
    for (int i = 0; i < 10; i++)
        swapcontext(&c.out, &c.in);
    if (c.x != 2441406)
        bed_bad("contexts", c.x, 2441406);
}

static volatile long raw_result;
static int be_raw(void *unused)
{
    (void)unused;
    raw_result = f_raw(raw_result);
    __asm__ volatile("syscall" : : "a"((long)SYS_exit), "D"(0L) : "rcx", "r11", "memory");
    __builtin_unreachable();
}

static void run_raw(char *top)
{
    static volatile int tid;
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                CLONE_CHILD_CLEARTID;
    tid = 1;
    if (clone(be_raw, top, flags, NULL, NULL, NULL, (void *)&tid) < 0)
        bed_bad("clone", errno, 0);
    while (tid)
        syscall(SYS_futex, &tid, 0 /* FUTEX_WAIT */, 1, NULL, NULL, 0);
}

static void *live(void *word)
{
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    __cxa_thread_atexit_impl(f_last, word, &__dso_handle);
    pthread_setspecific(key, word);
    size_t bytes = 65536;
    char *memory = malloc(bytes), *copy = malloc(bytes);
    memset(memory, (int)rounds, bytes);
    memcpy(copy, memory, bytes);
    if (memcmp(copy, memory, bytes) || write(null, copy, 5) != 5)
        bed_bad("memory", errno, 0);
    switch_contexts(memory, bytes);
    raw_result = 1;
    run_raw(copy + bytes - 64);
    if (raw_result != 8)
        bed_bad("raw", raw_result, 8);
    free(memory);
    free(copy);
    clock_gettime(CLOCK_MONOTONIC, &after);
    if (after.tv_sec < before.tv_sec || f_alive(rounds) != rounds * 3 + 1 || f_hidden(rounds) != rounds + 17)
        bed_bad("alive", rounds, 0);
    return word;
}

static void *work(void *unused)
{
    uint32_t named = 0;
    char name[16];
    while (bed_running()) {
        pthread_t thread;
        long word = 0;
        if (BED_LOAD(bed->wish) != named) {
            named = BED_LOAD(bed->wish);
            snprintf(name, sizeof name, "_life-%u", named);
            prctl(PR_SET_NAME, name);
        }
        if (pthread_create(&thread, NULL, live, &word) || pthread_join(thread, NULL))
            bed_bad("thread", errno, 0);
        if (word != 24)
            bed_bad("destructors", word, 24);
        rounds++;
        ++*lives;
    }
    bed_leave();
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t worker;
    bed_open(argc, argv);
    lives = bed_counter("lives");
    null = open("/dev/null", O_WRONLY);
    pthread_key_create(&key, f_late);
    if (bed_number("xom", 0) && mprotect((void *)f_hidden, 4096, PROT_EXEC))
        bed_bad("mprotect", errno, 0);
    bed_enter();
    bed_threads(&worker, 1, work);
    bed_ready();
    bed_await_stop();
    pthread_join(worker, NULL);
    return bed_end();
}
