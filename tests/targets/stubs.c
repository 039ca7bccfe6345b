// build: gcc -O2 -fcf-protection=none stubs.c
// Reads the clock, by libc and so by the vDSO, and calls libc through linkage stubs: 100 times for
// each line of standard input.
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin)) {
        struct timespec now, last = {0, 0};
        int good = 0;
        for (int i = 0; i < 100; i++) {
            clock_gettime(CLOCK_MONOTONIC, &now);
            good += (now.tv_sec > last.tv_sec ||
                     (now.tv_sec == last.tv_sec && now.tv_nsec >= last.tv_nsec)) && getppid() > 0;
            last = now;
        }
        printf("%d\n", good);
    }
    return 0;
}
