// build: gcc -O2 -fcf-protection=none selfhash.c
// Answers each line of standard input with a checksum (FNV-1a) of its own code segment.
#define _GNU_SOURCE
#include <link.h>
#include <stdio.h>

__attribute__((noipa)) long f_hashed(long x) { return x * 3 + 1; }

static int find_text(struct dl_phdr_info *info, size_t size, void *text)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            ((unsigned char **)text)[0] = (unsigned char *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            ((unsigned char **)text)[1] = ((unsigned char **)text)[0] + info->dlpi_phdr[i].p_filesz;
        }
    return 1; /* the first is the program */
}

int main(void)
{
    char line[64];
    unsigned char *text[2];
    dl_iterate_phdr(find_text, text);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("READY");
    while (fgets(line, sizeof line, stdin)) {
        unsigned long hash = 14695981039346656037u;
        for (unsigned char *byte = text[0]; byte < text[1]; byte++)
            hash = (hash ^ *byte) * 1099511628211u;
        printf("%016lx %ld\n", hash, f_hashed(5));
    }
    return 0;
}
