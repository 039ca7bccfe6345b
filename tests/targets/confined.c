// build: gcc -O2 confined.c
// confined HOW PROGRAM [ARGUMENT...]: executes the program, confined as a service manager does it.
// HOW: calls, a seccomp filter that kills for calls which services need not make, as systemd's
// SystemCallFilter=; memory, the filter of MemoryDenyWriteExecute=; mdwe, PR_SET_MDWE (Linux 6.3),
// which newer systemd uses for that; alone, without an exception from Yama for other tracers.
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

#define FIELD(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name))
#define LENGTH(array) (sizeof(array) / sizeof(array)[0])
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip)
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define KILL(call) UNLESS(call, 1), RETURN(SECCOMP_RET_KILL_PROCESS)
/* The third argument, protection: EPERM if it has all of some bits. */
#define DENY(call, bits)                                                                          \
    FIELD(nr), UNLESS(call, 4), FIELD(args[2]), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, bits),         \
        UNLESS(bits, 1), RETURN(SECCOMP_RET_ERRNO | EPERM)

static struct sock_filter calls[] = {
    FIELD(arch), UNLESS(AUDIT_ARCH_X86_64, 1), BPF_STMT(BPF_JMP | BPF_JA, 1),
    RETURN(SECCOMP_RET_KILL_PROCESS), FIELD(nr), KILL(SYS_memfd_create), KILL(SYS_ptrace),
    KILL(SYS_process_vm_readv), KILL(SYS_mount), KILL(SYS_bpf), RETURN(SECCOMP_RET_ALLOW),
};
static struct sock_filter memory[] = {
    DENY(SYS_mmap, PROT_WRITE | PROT_EXEC), DENY(SYS_mprotect, PROT_EXEC),
    DENY(SYS_pkey_mprotect, PROT_EXEC), RETURN(SECCOMP_RET_ALLOW),
};

static int filter(struct sock_filter *code, unsigned short length)
{
    struct sock_fprog program = {length, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int confine(const char *how)
{
    if (!strcmp(how, "calls"))
        return filter(calls, LENGTH(calls));
    if (!strcmp(how, "memory"))
        return filter(memory, LENGTH(memory));
    if (!strcmp(how, "mdwe"))
        return prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
    return prctl(PR_SET_PTRACER, 0, 0, 0, 0);
}

int main(int argc, char **argv)
{
    if (argc < 3 || confine(argv[1])) {
        perror(argc < 3 ? "usage" : argv[1]);
        return 1;
    }
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 1;
}
