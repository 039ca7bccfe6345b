// build: g++ -O2 -fcf-protection=none -freorder-blocks-and-partition -pthread parts.cpp
// Functions whose unlikely halves lie elsewhere, as f_....cold: entered by a jump, also from where the
// unwinder comes to after a throw, with data in the red zone.
// threads=2
#include "bed.h"

#include <malloc.h>
#include <stdexcept>
#include <string>

#define KEEP __attribute__((noinline, noclone))
#define RARE(condition) __builtin_expect(condition, 0)

__attribute__((cold, noinline)) static int complain(const char *what, int x)
{
    return (int)strlen(what) * x;
}

/* A leaf with its argument all over the red zone: its part reads it there, and the flags. */
extern "C" long f_leaf(long x, long way);
__asm__(".text\n"
        ".globl f_leaf\n"
        ".type f_leaf, @function\n"
        "f_leaf: .cfi_startproc\n"
        ".irp n, 8,16,24,32,40,48,56,64,72,80,88,96,104,112,120,128\n"
        "    mov %rdi, -\\n(%rsp)\n"
        ".endr\n"
        "    cmp $4, %rsi\n"
        "    jae f_leaf.cold\n"
        "    mov %rdi, %rax\n"
        ".Lleave: ret\n"
        "    .cfi_endproc\n"
        ".size f_leaf, .-f_leaf\n"
        ".section .text.unlikely, \"ax\", @progbits\n"
        ".type f_leaf.cold, @function\n"
        "f_leaf.cold: .cfi_startproc\n"
        "    sete %al\n" /* only if it was 4 */
        "    movzbl %al, %eax\n"
        ".irp n, 8,16,24,32,40,48,56,64,72,80,88,96,104,112,120,128\n"
        "    add -\\n(%rsp), %rax\n"
        ".endr\n"
        "    jmp .Lleave\n"
        "    .cfi_endproc\n"
        ".size f_leaf.cold, .-f_leaf.cold\n"
        ".text\n");

extern "C" KEEP int f_unlikely(int x)
{
    if (RARE(x % 10 == 9))
        return complain("nine", x) + complain("and again", x * 2);
    return x * 7;
}

extern "C" KEEP int f_throws(int x)
{
    if (RARE(x % 7 == 6))
        throw std::out_of_range("six");
    return x + 1;
}

/* Has something to destroy: there the unwinder leads. */
extern "C" KEEP int f_cleans(int x)
{
    std::string text(40 + x % 3, 'x');
    return f_throws(x) + (int)text.size();
}

extern "C" KEEP int f_catches(int x)
{
    try {
        return f_cleans(x);
    } catch (std::out_of_range &error) {
        return -(int)strlen(error.what());
    }
}

static void *work(void *)
{
    volatile uint64_t *rounds = bed_counter("rounds");
    while (bed_running()) {
        for (int x = 0; x < 70; x++) {
            long leaf = x % 5 == 4 ? x * 16 + 1 : x;
            if (f_leaf(x, x % 5) != leaf)
                bed_bad("f_leaf", f_leaf(x, x % 5), leaf);
            int other = x % 10 == 9 ? 4 * x + 18 * x : x * 7;
            if (f_unlikely(x) != other)
                bed_bad("f_unlikely", x, other);
            int caught = x % 7 == 6 ? -3 : x + 1 + 40 + x % 3;
            if (f_catches(x) != caught)
                bed_bad("f_catches", x, caught);
        }
        ++*rounds;
    }
    bed_leave();
    return NULL;
}

int main(int argc, char **argv)
{
    static pthread_t threads[64];
    bed_open(argc, argv);
    mallopt(M_ARENA_MAX, 1); /* no memory of its own for each thread */
    long n = bed_number("threads", 2);
    for (long i = 0; i < n; i++)
        bed_enter();
    bed_threads(threads, n, work);
    bed_ready();
    bed_await_stop();
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
