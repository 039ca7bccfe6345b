// build: gcc -O2 -fcf-protection=none -pthread calls.c
// Calls one function of a table N times in one and the same loop, and says how long that took.
// Each line of stdin is "NAME N [ARGUMENT]", each line of stdout the nanoseconds it took.
// The argument cpu=NUMBER pins the program to one processor.
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SITE(name)                                                                                \
    __attribute__((noinline, noipa, aligned(64), patchable_function_entry(5, 0)))                  \
    long name(long x) { return x * 3 + 7; }
#define PLAIN(name)                                                                               \
    __attribute__((noinline, noipa, aligned(64))) long name(long x) { return x * 3 + 7; }

SITE(nop_untraced) SITE(nop_record) SITE(nop_count) SITE(nop_both) SITE(nop_full)
PLAIN(plain_untraced) PLAIN(plain_record) PLAIN(plain_count) PLAIN(plain_both) PLAIN(plain_full)

#define OTHER(n) SITE(other_##n)
#define OTHER8(n) OTHER(n##0) OTHER(n##1) OTHER(n##2) OTHER(n##3) OTHER(n##4) OTHER(n##5) \
                  OTHER(n##6) OTHER(n##7)
OTHER8(0) OTHER8(1) OTHER8(2) OTHER8(3) OTHER8(4) OTHER8(5) OTHER8(6) OTHER8(7)
#ifdef MANY
#define OTHER64(n) OTHER8(n##0) OTHER8(n##1) OTHER8(n##2) OTHER8(n##3) OTHER8(n##4) OTHER8(n##5) \
                   OTHER8(n##6) OTHER8(n##7)
OTHER64(a) OTHER64(b) OTHER64(c) OTHER64(d) OTHER64(e) OTHER64(f) OTHER64(g) OTHER64(h)
#endif

#define SLOTS (1 << 20)
char floor_buffer[16 * SLOTS] __attribute__((aligned(4096)));
uint64_t floor_head, floor_counter;

long call_trampoline(long), call_rdtsc(long), call_store(long), call_floor(long),
    call_stream(long), call_inc(long), call_lock_inc(long), call_padded(long),
    call_saved(long);
long loop_calls(long (*function)(long), long n);

// The floors: the same function at whose entry a call of five bytes goes to a hand-written stub.
// They save nothing and know everything: what no tracer of a live program can do.
__asm__(
    ".text\n"
    ".macro hooked name stub\n"
    ".p2align 6\n.globl \\name\n.type \\name, @function\n\\name:\n"
    "  call \\stub\n  lea 7(%rdi,%rdi,2), %rax\n  ret\n.size \\name, .-\\name\n.endm\n"
    ".macro padded name stub\n"
    ".p2align 6\n.globl \\name\n.type \\name, @function\n\\name:\n"
    "  jmp \\name\\()_pad\n\\name\\()_back:\n  lea 7(%rdi,%rdi,2), %rax\n  ret\n"
    ".size \\name, .-\\name\n"
    ".p2align 6\n\\name\\()_pad: call \\stub\n  jmp \\name\\()_back\n.endm\n"
    "hooked call_trampoline stub_empty\n"
    "hooked call_rdtsc stub_rdtsc\n"
    "hooked call_store stub_store\n"
    "hooked call_floor stub_floor\n"
    "hooked call_stream stub_stream\n"
    "hooked call_inc stub_inc\n"
    "hooked call_lock_inc stub_lock_inc\n"
    "padded call_padded stub_empty\n"
    "padded call_saved stub_saved\n"
    ".p2align 6\nstub_saved:\n"
    "  push %rax\n  push %rcx\n  lahf\n  seto %al\n  push %rax\n"
    "  pop %rax\n  add $0x7f, %al\n  sahf\n  pop %rcx\n  pop %rax\n  ret\n"
    ".p2align 6\nstub_empty: ret\n"
    ".p2align 6\nstub_rdtsc: rdtsc\n  ret\n"
    ".p2align 6\nstub_store:\n"
    "  mov %rdi, floor_buffer(%rip)\n  mov %rsp, floor_buffer+8(%rip)\n  ret\n"
    ".p2align 6\nstub_floor:\n"
    "  rdtsc\n  shl $32, %rdx\n  or %rdx, %rax\n"
    "  mov %rax, floor_buffer(%rip)\n  mov %rsp, floor_buffer+8(%rip)\n  ret\n"
    ".p2align 6\nstub_stream:\n"
    "  rdtsc\n  shl $32, %rdx\n  or %rdx, %rax\n"
    "  mov floor_head(%rip), %rcx\n  add $16, %rcx\n  and $0xffffff, %ecx\n"
    "  mov %rcx, floor_head(%rip)\n  lea floor_buffer(%rip), %rdx\n"
    "  mov %rax, (%rdx,%rcx)\n  mov %rsp, 8(%rdx,%rcx)\n  ret\n"
    ".p2align 6\nstub_inc: incq floor_counter(%rip)\n  ret\n"
    ".p2align 6\nstub_lock_inc: lock incq floor_counter(%rip)\n  ret\n"
    ".p2align 6\n.globl loop_calls\n.type loop_calls, @function\nloop_calls:\n"
    "  push %rbx\n  push %r12\n  push %r13\n  mov %rdi, %rbx\n  mov %rsi, %r12\n"
    "  .p2align 6\n"
    "1:mov %r12, %rdi\n  call *%rbx\n  dec %r12\n  jnz 1b\n"
    "  pop %r13\n  pop %r12\n  pop %rbx\n  ret\n.size loop_calls, .-loop_calls\n");

static const struct { const char *name; long (*call)(long); } table[] = {
#define ROW(name) { #name, name }
    ROW(nop_untraced), ROW(nop_record), ROW(nop_count), ROW(nop_both), ROW(nop_full),
    ROW(plain_untraced), ROW(plain_record), ROW(plain_count), ROW(plain_both), ROW(plain_full),
    ROW(call_trampoline), ROW(call_rdtsc), ROW(call_store), ROW(call_floor), ROW(call_stream),
    ROW(call_inc), ROW(call_lock_inc), ROW(call_padded), ROW(call_saved), ROW(other_00), ROW(other_77),
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

int main(int argc, char **argv)
{
    char line[128], name[64];
    long n;

    if (argc > 1 && !strncmp(argv[1], "cpu=", 4)) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(atoi(argv[1] + 4), &set);
        sched_setaffinity(0, sizeof set, &set);
    }
    memset(floor_buffer, 1, sizeof floor_buffer);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%63s %ld", name, &n) == 2) {
        long (*function)(long) = NULL;
        for (size_t i = 0; i < sizeof table / sizeof *table; i++)
            if (!strcmp(table[i].name, name))
                function = table[i].call;
        if (!function)
            return 2;
        loop_calls(function, 64);
        uint64_t begin = now_ns();
        loop_calls(function, n);
        printf("%llu\n", (unsigned long long)(now_ns() - begin));
        fflush(stdout);
    }
    return 0;
}
