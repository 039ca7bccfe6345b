/* What a C callback of fentry may use. Names are those of the kernel (include/linux/ftrace.h).
 *
 *     void callback(unsigned long ip, unsigned long parent_ip,
 *                   struct ftrace_ops *op, struct ftrace_regs *regs);
 *
 * It runs inside the traced program, on the stack of the calling thread, at the first instruction
 * of the traced function: no libc, no system call, no thread local variable. Of a part of a function
 * (f.cold) parent_ip is 0: jumps enter it in the middle of a call. */
#pragma once

/* Registers as the traced function finds them, in the order of the kernel's struct pt_regs
 * (arch/x86/include/asm/ptrace.h). Writing them has no effect without SAVE_REGS and IPMODIFY;
 * flags, cs, sp, ss, orig_ax and xstate are never written back. */
struct ftrace_regs {
    unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
    unsigned long orig_ax; /* -1: no system call */
    unsigned long ip;      /* where the program goes on: `ip`, unless it is changed */
    unsigned long cs, flags;
    unsigned long sp; /* at the return address: *(unsigned long *)sp is parent_ip; not of parts */
    unsigned long ss;
    const void *xstate; /* vectors, x87, MXCSR as XSAVE has them; 0 where they are not saved */
};

struct ftrace_ops {
    void *private; /* memory of these ops, as Ops(private=...) filled it */
    unsigned long flags;
    unsigned long id;
};

#define pt_regs ftrace_regs
#define READ_ONCE(x) (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile __typeof__(x) *)&(x) = (value))
#define barrier() __asm__ volatile("" ::: "memory")
#define smp_mb() __asm__ volatile("lock; addl $0, -4(%%rsp)" ::: "memory", "cc")
#define smp_rmb() barrier()
#define smp_wmb() barrier()

/* The n-th argument, from 0, if it is an integer or a pointer (System V ABI 3.2.3). */
static inline unsigned long ftrace_regs_get_argument(const struct ftrace_regs *regs, unsigned int n)
{
    switch (n) {
    case 0: return regs->di;
    case 1: return regs->si;
    case 2: return regs->dx;
    case 3: return regs->cx;
    case 4: return regs->r8;
    case 5: return regs->r9;
    default: return ((const unsigned long *)regs->sp)[n - 5];
    }
}

/* The bits of the low half of xmm0 to xmm15: the n-th floating-point argument. SAVE_REGS saves them.
 * Legacy region of XSAVE, SDM Vol. 1, 13.4.1; XSTATE_BV, 13.4.2: what is clear there is 0. */
static inline unsigned long ftrace_regs_get_xmm(const struct ftrace_regs *regs, unsigned int n)
{
    const unsigned long *words = (const unsigned long *)regs->xstate;
    return words && words[64] & 2 ? words[20 + 2 * n] : 0;
}

static inline struct pt_regs *ftrace_get_regs(struct ftrace_regs *regs)
{
    return regs;
}

static inline unsigned long ftrace_regs_get_stack_pointer(const struct ftrace_regs *regs)
{
    return regs->sp;
}

static inline unsigned long ftrace_regs_get_instruction_pointer(const struct ftrace_regs *regs)
{
    return regs->ip;
}

static inline void ftrace_regs_set_instruction_pointer(struct ftrace_regs *regs, unsigned long ip)
{
    regs->ip = ip;
}

/* Adds to a word that other threads and signal handlers change as well; what it was before. */
static inline unsigned long atomic_add(unsigned long *word, unsigned long count)
{
    return __atomic_fetch_add(word, count, __ATOMIC_RELAXED);
}
