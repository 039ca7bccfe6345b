// build: gcc -O2 -fcf-protection=none -ffreestanding -fno-stack-protector -nostdlib -static layout.c
// Needs no library, so that any linker may lay it out anyhow. Answers each line of standard input,
// a digit, by what functions make of it.
#define FUNCTION __attribute__((noipa))

static long call(long number, long a, const void *b, long c)
{
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
                 : "rcx", "r11", "memory");
    return result;
}

static volatile const long table[] = {3, 5, 7};

FUNCTION long f_plain(long x) { return x * table[0] + 1; }
static FUNCTION long f_local(long x) { return f_plain(x) + table[1]; }
FUNCTION long f_both(long x) { return f_local(x) - f_plain(x); }

asm(".globl _start\n_start: and $-16, %rsp\n call start\n hlt");
__attribute__((noreturn, used)) static void start(void)
{
    char line[64];
    call(1, 1, "READY\n", 6);
    while (call(0, 0, line, sizeof line) > 0) {
        char text[2] = {(char)('0' + f_both(line[0] - '0')), '\n'};
        call(1, 1, text, 2);
    }
    call(231, 0, 0, 0);
    __builtin_unreachable();
}
