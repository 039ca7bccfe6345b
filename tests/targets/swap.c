// build: gcc -O2 -fcf-protection=none swap.c -ldl
// Does what standard input says, a letter a time, and answers a line: o PATH opens a library in
// the place of the one before, c calls its plug, x closes it. Not a bed: the caller goes step by
// step.
#include <dlfcn.h>
#include <stdio.h>

int main(void)
{
    char line[4096];
    void *library = NULL;
    long (*plug)(long) = NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == 'o' || line[0] == 'x') {
            if (library)
                dlclose(library);
            library = NULL;
            for (char *end = line; *end; end++)
                if (*end == '\n')
                    *end = 0;
            if (line[0] == 'o') {
                library = dlopen(line + 2, RTLD_NOW);
                plug = library ? (long (*)(long))dlsym(library, "plug") : NULL;
            }
            printf("%p\n", (void *)(library ? plug : NULL));
        } else if (line[0] == 'c') {
            printf("%ld\n", plug(5));
        }
    }
    return 0;
}
