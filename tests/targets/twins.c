// build: gcc -O2 -fno-ipa-icf -ffunction-sections -fcf-protection=none twins.c twins_other.c
// Two files with a static function of the same name, and functions alike that a linker may fold.
// Answers each line of standard input by calls.
#include <stdio.h>

#define FUNCTION __attribute__((noipa, used))
long other(long x);

static FUNCTION long f_twin(long x) { return x * 3 + 1; }
FUNCTION long f_alike(long x) { return x ^ 0x1234567; }
FUNCTION long f_same(long x) { return x ^ 0x1234567; }

int main(void)
{
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin))
        printf("%ld\n", f_twin(5) + other(5) + f_alike(5) + f_same(5));
    return 0;
}
