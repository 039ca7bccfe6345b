// build: gcc -O2 -fcf-protection=none faults.c
// Functions whose first bytes fault, and handlers that recover. Does what standard input says:
// s skips the instruction by adding to rip, j leaves by siglongjmp, d the same after a division by
// zero; each answers how often it worked, and how often the address was that of the instruction.
// w ORDER waits in the handler (on a stack of its own if a is in it) until the entry is patched (p)
// or not (u), and lets the load go on.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

/* Faults at its second instruction: one, three, one and one byte. */
asm(".p2align 4\n.type f_load, @function\nf_load: push %rbx; mov (%rdi), %rax; pop %rbx; ret\n"
    ".size f_load, . - f_load");
/* Likewise: two and three bytes. */
asm(".p2align 4\n.type f_divide, @function\nf_divide: cqo; idiv %rsi; ret\n"
    ".size f_divide, . - f_divide\n");
long f_load(const volatile long *address), f_divide(long a, long b);
extern char load[] asm("f_load"), divide[] asm("f_divide");
/* To the instruction that faults; nothing in the file may name its address. */
static volatile long to_load = 1, to_divide = 2;

static volatile char how;
static volatile long recovered, known;
static const char *order = "";
static unsigned char original[5];
static sigjmp_buf back;
static long *page;

static long divide_in_rax(long a, long b)
{
    long result;
    asm volatile("call f_divide" : "=a"(result) : "a"(a), "S"(b) : "rdx", "cc", "memory");
    return result;
}

static void nap(long ms) { nanosleep(&(struct timespec){0, ms * 1000000}, NULL); }

static void wait_in_handler(void)
{
    puts("in handler");
    for (const char *step = order; *step == 'p' || *step == 'u'; step++) {
        while (!memcmp(load, original, sizeof original) == (*step == 'p'))
            nap(1);
        printf("saw %c\n", *step);
    }
    nap(50); /* a detach has its time to unmap what this returns to */
    mprotect(page, 4096, PROT_READ);
}

static void handler(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const void *at = (const void *)registers[REG_RIP];
    const void *really = number == SIGFPE ? divide + to_divide : load + to_load;
    int right = number == SIGFPE || info->si_addr == (how == 'w' ? page : NULL);
    known += at == really;
    recovered += right;
    if (how == 'w')
        wait_in_handler();
    else if (how == 's')
        registers[REG_RIP] += 3;
    else
        siglongjmp(back, 1);
}

int main(void)
{
    char line[64];
    memcpy(original, load, sizeof original);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&stack, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin)) {
        struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
        how = line[0];
        order = line + 2;
        if (how == 'w' && strchr(order, 'a'))
            action.sa_flags |= SA_ONSTACK;
        sigaction(SIGSEGV, &action, NULL);
        sigaction(SIGFPE, &action, NULL);
        recovered = known = 0;
        if (how == 'w') {
            *page = 42;
            mprotect(page, 4096, PROT_NONE);
            printf("%ld\n", f_load(page));
            mprotect(page, 4096, PROT_READ | PROT_WRITE);
            continue;
        }
        for (volatile int i = 0; i < 100; i++)
            if (!sigsetjmp(back, 1)) {
                if (how == 'd')
                    divide_in_rax(i, 0);
                else
                    f_load(NULL);
            }
        printf("%ld %ld\n", recovered, known);
    }
    return 0;
}
