// build: gcc -O2 -fcf-protection=none -mno-red-zone edges.c
// Entries that are hard to patch, each called once for every line of standard input; answers how
// many results were wrong. It reads by f_read, so that between two lines its thread stands there.
#include <stdio.h>
#include <unistd.h>

#define FUNCTION(name, body) \
    asm(".p2align 4\n.type " #name ", @function\n" #name ": .cfi_startproc\n" body \
        "\n.cfi_endproc\n.size " #name ", . - " #name); \
    extern char name[]

/* One to four bytes, with padding behind them, and without. */
FUNCTION(f_byte, "ret");
FUNCTION(f_three, "inc %eax; ret");
FUNCTION(f_four, "inc %rax; ret");
asm(".p2align 4\n.type f_tight, @function\nf_tight: ret\n.size f_tight, . - f_tight\n"
    ".type f_neighbour, @function\nf_neighbour: add $5, %rax; nop; ret\n"
    ".size f_neighbour, . - f_neighbour");
extern char f_tight[], f_neighbour[];

/* Loops to the first byte: from within the first five, and from behind them. */
FUNCTION(f_spin, "dec %rdi; jnz f_spin; mov %rdi, %rax; ret");
FUNCTION(f_again, "inc %rax; dec %rdi; nop; nop; jnz f_again; ret");

/* Where am I: a call to what follows it, and the address off the stack. */
FUNCTION(f_where, "call 1f; .Lwhere: 1: pop %rax; ret");
FUNCTION(f_where_later, "push %rbx; call 1f; .Lwhere_later: 1: pop %rax; pop %rbx; ret");
asm(".section .data.rel.ro, \"aw\"\n.p2align 3\nwhere: .quad .Lwhere, .Lwhere_later\n.text");
extern const long where[2];

/* A transaction (never run: not every processor has them), system calls early and later. */
FUNCTION(f_transaction, "xbegin 1f; xend; 1: mov %rdi, %rax; ret");
FUNCTION(f_early_call, "push $39; pop %rax; syscall; ret"); /* getpid */
FUNCTION(f_late_call, "mov $39, %eax; syscall; ret");
FUNCTION(f_read, "mov $0, %eax; syscall; ret");

/* Data in the text: a constant that looks like a call into the first bytes, and a jump table. */
FUNCTION(f_island, "mov .Lisland(%rip), %rax; ret; .byte 0xe8; .long f_island + 2 - 1f; 1: \n"
                   ".Lisland: .quad 0x1122334455667788");
FUNCTION(f_table, "and $3, %edi; lea .Ltable(%rip), %rcx; movslq (%rcx,%rdi,4), %rax; "
                  "add %rcx, %rax; jmp *%rax\n"
                  ".Ltable: .long .Lt0 - .Ltable, .Lt1 - .Ltable, .Lt2 - .Ltable, .Lt3 - .Ltable\n"
                  ".Lt0: mov $10, %eax; ret; .Lt1: mov $11, %eax; ret\n"
                  ".Lt2: mov $12, %eax; ret; .Lt3: mov $13, %eax; ret");

/* Symbols without a size: one that nothing ends, one that its frame ends. */
asm(".p2align 4\n.type f_endless, @function\nf_endless: lea 9(%rdi), %rax; nop; ret\n"
    ".p2align 4\n.type f_framed, @function\n"
    "f_framed: .cfi_startproc\n lea 9(%rdi), %rax; nop; ret\n.cfi_endproc");
extern char f_endless[], f_framed[];

/* Symbols in the middle: another function, which is called and run into; a label in the window. */
asm(".p2align 4\n.type f_outer, @function\nf_outer: add $100, %rax; nop; nop\n"
    ".type f_inner, @function\nf_inner: add $7, %rax; nop; ret\n"
    ".size f_inner, . - f_inner\n.size f_outer, . - f_outer");
asm(".p2align 4\n.type f_labelled, @function\nf_labelled: nop\nf_label: add $3, %rax; ret\n"
    ".size f_labelled, . - f_labelled");
extern char f_outer[], f_inner[], f_labelled[];

/* A function symbol in the data, a data symbol in the text. */
asm(".data\n.type f_in_data, @function\nf_in_data: .quad 0xc3\n.size f_in_data, 8\n.text\n"
    ".p2align 4\n.type f_is_data, @object\nf_is_data: .quad 0x5555\n.size f_is_data, 8");
extern long f_in_data, f_is_data;

static long call(const char *function, long x)
{   /* with x in rax and rdi */
    long result;
    asm volatile("call *%2" : "=a"(result), "+D"(x) : "r"(function), "a"(x)
                 : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory", "cc");
    return result;
}

static long read_by(const char *function, char *line, long size)
{
    long result;
    asm volatile("call *%1" : "=a"(result) : "r"(function), "D"(0L), "S"(line), "d"(size)
                 : "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
    return result;
}

int main(void)
{
    char line[256];
    long pid = getpid();
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (read_by(f_read, line, sizeof line) > 0) {
        const struct { const char *function; long x, expected; } calls[] = {
            {f_byte, 3, 3}, {f_three, 3, 4}, {f_four, 3, 4}, {f_tight, 3, 3}, {f_neighbour, 3, 8},
            {f_spin, 9, 0}, {f_again, 9, 18}, {f_where, 0, where[0]},
            {f_where_later, 0, where[1]}, {f_early_call, 0, pid}, {f_late_call, 0, pid},
            {f_island, 0, 0x1122334455667788}, {f_table, 0, 10}, {f_table, 3, 13},
            {f_endless, 1, 10}, {f_framed, 1, 10}, {f_outer, 1, 108}, {f_inner, 1, 8},
            {f_labelled, 1, 4},
        };
        int wrong = f_in_data != 0xc3 || f_is_data != 0x5555;
        for (unsigned i = 0; i < sizeof calls / sizeof calls[0]; i++)
            wrong += call(calls[i].function, calls[i].x) != calls[i].expected;
        printf("%d wrong\n", wrong);
    }
    return 0;
}
