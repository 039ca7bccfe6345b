// build: gcc -O2 -fcf-protection=none -pthread forks.c
// Children by fork, vfork, posix_spawn, system() and exec of itself, in turn, while threads=2 more
// call. Counts: f_parent by the process itself; f_child by forked children (to stay silent);
// f_vforked by children that still share its memory; f_parent is never called by a child.
#include "bed.h"
#include <spawn.h>
#include <sys/wait.h>

enum { CHILD_CALLS = 10, CHILD_STATUS = 42 };
extern char **environ;
static volatile uint64_t *forked, *vforked;

__attribute__((noipa)) long f_parent(long x) { return x * 5 + 2; }
__attribute__((noipa)) long f_child(long x) { return x * 7 + 3; }
__attribute__((noipa)) long f_vforked(long x) { return x * 9 + 4; }

static int child_work(long (*call)(long), long factor, long plus)
{
    for (long i = 0; i < CHILD_CALLS; i++)
        if (call(i) != i * factor + plus)
            return 1;
    return CHILD_STATUS;
}

static void expect_status(const char *how, pid_t child)
{
    int status = 0;
    pid_t reaped;
    while ((reaped = waitpid(child, &status, 0)) < 0 && errno == EINTR)
        bed_bad("waitpid interrupted", EINTR, 0);
    if (reaped != child || !WIFEXITED(status) || WEXITSTATUS(status) != CHILD_STATUS)
        bed_bad(how, status, CHILD_STATUS << 8);
}

static void *work(void *unused)
{
    volatile uint64_t *calls = bed_counter("f_parent");
    while (bed_running()) {
        for (long i = 0; i < 100; i++, ++*calls)
            if (f_parent(i) != i * 5 + 2)
                bed_bad("f_parent", i, 0);
        bed_nap_us(200);
    }
    bed_leave();
    return unused;
}

static void make_children(char *self)
{
    char *child_arguments[] = {self, "child", NULL}, line[4200];
    pid_t child = fork();
    if (!child)
        _exit(child_work(f_child, 7, 3));
    expect_status("fork", child);
    *forked += CHILD_CALLS;

    if (!(child = vfork()))
        _exit(child_work(f_vforked, 9, 4));
    expect_status("vfork", child);
    *vforked += CHILD_CALLS;

    if (!(child = vfork())) {
        execve(self, child_arguments, environ);
        _exit(1);
    }
    expect_status("vfork and exec", child);
    if (posix_spawn(&child, self, NULL, NULL, child_arguments, environ))
        bed_bad("posix_spawn", errno, 0);
    expect_status("posix_spawn", child);
    snprintf(line, sizeof line, "'%s' child", self);
    int status = system(line);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != CHILD_STATUS)
        bed_bad("system", status, CHILD_STATUS << 8);
}

int main(int argc, char **argv)
{
    static pthread_t threads[64];
    char self[4096] = "";
    if (argc > 1 && !strcmp(argv[1], "child"))
        return child_work(f_child, 7, 3); /* a new image: nobody traces it */
    bed_open(argc, argv);
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        bed_bad("readlink", errno, 0);
    forked = bed_counter("f_child");
    vforked = bed_counter("f_vforked");
    volatile uint64_t *rounds = bed_counter("rounds");
    long n = bed_number("threads", 2);
    for (long i = 0; i <= n; i++)
        bed_enter();
    bed_threads(threads, n, work);
    bed_ready();
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    for (; bed_running(); ++*rounds) {
        make_children(self);
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    bed_leave();
    for (long i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return bed_end();
}
