// build: gcc -O2 -pthread syscalls.c
// One thread in each blocking system call, for ever. Each counts rounds (n.NAME), EINTR
// (eintr.NAME) and the worst lateness (late_us.NAME); too short a wait or a wrong result is bad.
// A feeder wakes those that have no limit of their own. Real-time signals: signals.sent = .handled
#include "bed.h"
#include <mqueue.h>
#include <poll.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { WAIT_MS = 30 };
static int pipe_fds[2], socket_fds[2], quiet[2], listener, dead_listener, epoll, semaphore, queue,
    inotify, lock_mine, lock_other, event, signal_fd;
static mqd_t mail;
static unsigned wake_word, quiet_word;
static pthread_t pause_thread, suspend_thread, wait_thread;
static pthread_mutex_t signal_lock = PTHREAD_MUTEX_INITIALIZER;
static volatile uint64_t *sent, *handled;
static struct sockaddr_in address = {.sin_family = AF_INET};
static char scratch_path[32]; /* of an unlinked file, through its descriptor */

#define RELATIVE {0, WAIT_MS * 1000000L}
static struct timespec later(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_nsec += WAIT_MS * 1000000L;
    t.tv_sec += t.tv_nsec / 1000000000L;
    t.tv_nsec %= 1000000000L;
    return t;
}

/* Each returns what the system call returned; those marked T have the limit WAIT_MS. */
static long t_poll(void)
{
    struct pollfd p = {quiet[0], POLLIN, 0};
    return poll(&p, 1, WAIT_MS);
}
static long t_ppoll(void)
{
    struct pollfd p = {quiet[0], POLLIN, 0};
    struct timespec t = RELATIVE;
    return ppoll(&p, 1, &t, NULL);
}
static long t_select(void)
{
    struct timeval t = {0, WAIT_MS * 1000};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(quiet[0], &set);
    return select(quiet[0] + 1, &set, NULL, NULL, &t);
}
static long t_pselect(void)
{
    struct timespec t = RELATIVE;
    fd_set set;
    FD_ZERO(&set);
    FD_SET(quiet[0], &set);
    return pselect(quiet[0] + 1, &set, NULL, NULL, &t, NULL);
}
static struct epoll_event happened;
static long t_epoll_wait(void) { return epoll_wait(epoll, &happened, 1, WAIT_MS); }
static long t_epoll_pwait(void)
{
    sigset_t none;
    sigfillset(&none);
    return epoll_pwait(epoll, &happened, 1, WAIT_MS, &none);
}
static long t_epoll_pwait2(void)
{
    struct timespec t = RELATIVE;
    return syscall(441 /* epoll_pwait2, Linux 5.11 */, epoll, &happened, 1, &t, NULL, 8);
}
static long t_futex(void)
{
    struct timespec t = RELATIVE;
    return syscall(SYS_futex, &quiet_word, 0 /* FUTEX_WAIT */, 0, &t, NULL, 0);
}
static long t_futex_absolute(void)
{
    struct timespec t = later(CLOCK_MONOTONIC);
    return syscall(SYS_futex, &quiet_word, 9 /* FUTEX_WAIT_BITSET */, 0, &t, NULL, ~0);
}
static long t_nanosleep(void)
{
    struct timespec t = RELATIVE;
    return nanosleep(&t, NULL);
}
static long t_clock_nanosleep(void)
{
    struct timespec t = RELATIVE;
    return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL);
}
static long t_clock_nanosleep_absolute(void)
{
    struct timespec t = later(CLOCK_REALTIME);
    return syscall(SYS_clock_nanosleep, CLOCK_REALTIME, TIMER_ABSTIME, &t, NULL);
}
static char byte;
static long t_read_limit(void) { return read(quiet[0], &byte, 1); }
static long t_recv_limit(void) { return recv(quiet[0], &byte, 1, 0); }
static long t_recvmsg_limit(void)
{
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    return recvmsg(quiet[0], &m, 0);
}
static long t_accept_limit(void) { return accept(dead_listener, NULL, NULL); }
static long t_semtimedop(void)
{
    struct timespec t = RELATIVE;
    struct sembuf take = {1, -1, 0};
    return semtimedop(semaphore, &take, 1, &t);
}
static long t_mq_timedreceive(void)
{
    struct timespec t = later(CLOCK_REALTIME);
    char message[8];
    return mq_timedreceive(mail, message, sizeof message, NULL, &t);
}
static long t_sigtimedwait(void)
{
    struct timespec t = RELATIVE;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3); /* nobody sends it */
    return sigtimedwait(&set, NULL, &t);
}

/* Without a limit: the feeder ends the wait. */
static long w_futex(void)
{
    unsigned seen = BED_LOAD(wake_word);
    long result = syscall(SYS_futex, &wake_word, 0, seen, NULL, NULL, 0);
    return result < 0 && errno == EAGAIN ? 0 : result;
}
static long w_read_pipe(void) { return read(pipe_fds[0], &byte, 1); }
static long w_recv(void) { return recv(socket_fds[0], &byte, 1, 0); }
static long w_read_eventfd(void)
{
    uint64_t value;
    return read(event, &value, sizeof value);
}
static long w_read_inotify(void)
{
    char events[4096];
    return read(inotify, events, sizeof events);
}
static long w_read_signalfd(void)
{
    struct signalfd_siginfo received;
    long result = read(signal_fd, &received, sizeof received);
    if (result > 0)
        BED_ADD(*handled, 1);
    return result;
}
static long w_accept(void)
{
    int fd = accept(listener, NULL, NULL);
    return fd < 0 ? fd : close(fd);
}
static long w_semop(void)
{
    struct sembuf take = {0, -1, 0};
    return semop(semaphore, &take, 1);
}
static long w_msgrcv(void)
{
    struct { long type; char text[8]; } message;
    return msgrcv(queue, &message, sizeof message.text, 0, 0);
}
static long w_flock(void)
{
    int result = flock(lock_mine, LOCK_EX);
    result = result ? result : flock(lock_mine, LOCK_UN);
    bed_nap_us(5000); /* the feeder holds it for most of the time, not for all */
    return result;
}
static long w_fcntl_lock(void)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    long result = fcntl(lock_mine, F_OFD_SETLKW, &whole);
    whole.l_type = F_UNLCK;
    result = result ? result : fcntl(lock_mine, F_OFD_SETLK, &whole);
    bed_nap_us(5000);
    return result;
}
static long w_waitpid(void)
{
    int status;
    pid_t child = fork();
    if (!child) {
        struct timespec t = RELATIVE;
        nanosleep(&t, NULL);
        _exit(7);
    }
    long result = waitpid(child, &status, 0);
    if (result == child && (!WIFEXITED(status) || WEXITSTATUS(status) != 7))
        bed_bad("exit status of a child", status, 7 << 8);
    while (result < 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return result;
}

/* These end by a signal, so that EINTR is their right result; the handler counts. */
static void on_signal(int number, siginfo_t *received, void *context)
{
    (void)number, (void)context;
    if (received->si_code != SI_QUEUE || received->si_value.sival_int != 4711)
        bed_bad("value of a signal", received->si_value.sival_int, 4711);
    BED_ADD(*handled, 1);
}
/* Told once, by the waiting thread itself: from now on signals are sent to it. */
static void take_signals(pthread_t *who)
{
    pthread_mutex_lock(&signal_lock);
    *who = pthread_self();
    pthread_mutex_unlock(&signal_lock);
}
static long ended_by_signal(long result)
{
    return result == -1 && errno == EINTR ? 0 : -1;
}
static long w_pause(void)
{
    sigset_t set;
    take_signals(&pause_thread);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return ended_by_signal(pause());
}
static long w_sigsuspend(void)
{
    sigset_t open_for_one;
    take_signals(&suspend_thread);
    sigfillset(&open_for_one);
    sigdelset(&open_for_one, SIGRTMIN + 1);
    return ended_by_signal(sigsuspend(&open_for_one));
}
static long wait_for(int number, long (*call)(const sigset_t *))
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    long result = call(&set);
    if (result == number)
        BED_ADD(*handled, 1);
    return result;
}
static long plain_sigwaitinfo(const sigset_t *set)
{
    return syscall(SYS_rt_sigtimedwait, set, NULL, NULL, 8);
}
static long w_sigwaitinfo(void)
{
    take_signals(&wait_thread);
    return wait_for(SIGRTMIN + 2, plain_sigwaitinfo);
}

/* `error`: what a wait with a limit ends with, 0 for a plain 0; -1 for those that are fed. */
static const struct wait { const char *name; long (*call)(void); int error; } waits[] = {
#define T(name, error) {#name, t_##name, error}
#define W(name) {#name, w_##name, -1}
    T(poll, 0), T(ppoll, 0), T(select, 0), T(pselect, 0), T(epoll_wait, 0), T(epoll_pwait, 0),
    T(epoll_pwait2, 0), T(futex, ETIMEDOUT), T(futex_absolute, ETIMEDOUT), T(nanosleep, 0),
    T(clock_nanosleep, 0), T(clock_nanosleep_absolute, 0), T(read_limit, EAGAIN),
    T(recv_limit, EAGAIN), T(recvmsg_limit, EAGAIN), T(accept_limit, EAGAIN),
    T(semtimedop, EAGAIN), T(mq_timedreceive, ETIMEDOUT), T(sigtimedwait, EAGAIN), W(futex),
    W(read_pipe), W(recv), W(read_eventfd), W(read_inotify), W(read_signalfd), W(accept),
    W(semop), W(msgrcv), W(flock), W(fcntl_lock), W(waitpid), W(pause), W(sigsuspend),
    W(sigwaitinfo),
};
enum { NR_WAITS = sizeof waits / sizeof *waits };
static const char *only; /* only=NAME: that wait alone */

/* Takes what is still queued for the thread (or, by main, the process), without waiting. */
static void count_pending(void)
{
    struct timespec none = {0, 0};
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i <= 4; i++)
        sigaddset(&set, SIGRTMIN + i);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    while (sigtimedwait(&set, NULL, &none) > 0)
        BED_ADD(*handled, 1);
}

/* No signal is queued for this thread any more; those that are count as handled. */
static void stop_signals(void)
{
    pthread_t *all[] = {&pause_thread, &suspend_thread, &wait_thread};
    int mine = 0;
    pthread_mutex_lock(&signal_lock);
    for (int i = 0; i < 3; i++)
        if (*all[i] && pthread_equal(*all[i], pthread_self()))
            *all[i] = 0, mine = 1;
    pthread_mutex_unlock(&signal_lock);
    if (mine)
        count_pending();
}

static void *work(void *index)
{
    const struct wait *w = &waits[(long)index];
    char name[48];
    snprintf(name, sizeof name, "n.%s%s", w->error < 0 ? "fed_" : "", w->name);
    volatile uint64_t *rounds = bed_counter(name);
    snprintf(name, sizeof name, "eintr.%s%s", w->error < 0 ? "fed_" : "", w->name);
    volatile uint64_t *interrupted = bed_counter(name);
    snprintf(name, sizeof name, "late_us.%s%s", w->error < 0 ? "fed_" : "", w->name);
    volatile uint64_t *late_us = bed_counter(name);

    while (!BED_LOAD(bed->stop)) {
        long start = bed_now_ns();
        long result = w->call();
        long waited_us = (bed_now_ns() - start) / 1000;
        if (result < 0 && errno == EINTR) {
            ++*interrupted;
            continue;
        }
        ++*rounds;
        if (w->error > 0 ? result != -1 || errno != w->error : result < 0)
            bed_bad(w->name, result < 0 ? errno : result, w->error);
        if (w->error < 0)
            continue;
        if (waited_us < WAIT_MS * 1000 - 1000) /* some clocks count in ticks or milliseconds */
            bed_bad(w->name, waited_us, WAIT_MS * 1000);
        else if ((uint64_t)waited_us > WAIT_MS * 1000 + *late_us)
            *late_us = waited_us - WAIT_MS * 1000;
    }
    stop_signals();
    bed_leave();
    return NULL;
}

static void queue_signal(pthread_t *thread, int number)
{
    union sigval value = {.sival_int = 4711};
    pthread_mutex_lock(&signal_lock);
    if (*thread && !pthread_sigqueue(*thread, number, value))
        BED_ADD(*sent, 1);
    pthread_mutex_unlock(&signal_lock);
}

/* Wakes all unlimited waits, as long as some thread still works. */
static void feed(void)
{
    struct sembuf give = {0, 1, 0};
    struct { long type; char text[8]; } message = {1, "message"};
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    union sigval value = {.sival_int = 4711};
    uint64_t one = 1;
    long failed = 0;

    flock(lock_other, LOCK_EX);
    fcntl(lock_other, F_OFD_SETLKW, &whole);
    bed_nap_us(WAIT_MS * 1000);
    flock(lock_other, LOCK_UN);
    whole.l_type = F_UNLCK;
    fcntl(lock_other, F_OFD_SETLK, &whole);

    BED_ADD(wake_word, 1);
    syscall(SYS_futex, &wake_word, 1 /* FUTEX_WAKE */, 1000, NULL, NULL, 0);
    failed |= write(pipe_fds[1], "x", 1) < 0 || send(socket_fds[1], "x", 1, 0) < 0;
    failed |= write(event, &one, sizeof one) < 0 || semop(semaphore, &give, 1) < 0;
    failed |= msgsnd(queue, &message, sizeof message.text, IPC_NOWAIT) < 0 && errno != EAGAIN;
    int file = open(scratch_path, O_RDONLY | O_CLOEXEC); /* for inotify */
    int caller = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    failed |= file < 0 || connect(caller, (struct sockaddr *)&address, sizeof address) < 0;
    close(file);
    close(caller);
    queue_signal(&pause_thread, SIGRTMIN);
    queue_signal(&suspend_thread, SIGRTMIN + 1);
    queue_signal(&wait_thread, SIGRTMIN + 2);
    if (!only && !sigqueue(getpid(), SIGRTMIN + 4, value)) /* read by the signalfd */
        BED_ADD(*sent, 1);
    if (failed)
        bed_bad("feeder", errno, 0);
}

static int listening(struct sockaddr_in *at)
{
    socklen_t size = sizeof *at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)at, sizeof *at) || listen(fd, 64) ||
        getsockname(fd, (struct sockaddr *)at, &size))
        bed_bad("listen", errno, 0);
    return fd;
}

static void open_all(void)
{
    struct sockaddr_in dead = {.sin_family = AF_INET};
    struct timeval limit = {0, WAIT_MS * 1000};
    struct mq_attr sizes = {.mq_maxmsg = 4, .mq_msgsize = 8};
    struct epoll_event wanted = {.events = EPOLLIN};
    char name[32], scratch[] = "/tmp/fentry-syscalls-XXXXXX";
    sigset_t set;

    if (pipe(pipe_fds) || socketpair(AF_UNIX, SOCK_STREAM, 0, socket_fds) ||
        socketpair(AF_UNIX, SOCK_STREAM, 0, quiet))
        bed_bad("pipe", errno, 0);
    listener = listening(&address);
    dead_listener = listening(&dead);
    setsockopt(quiet[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(dead_listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, quiet[0], &wanted);
    semaphore = semget(IPC_PRIVATE, 2, 0600);
    queue = msgget(IPC_PRIVATE, 0600);
    *bed_counter("id.semaphore") = (uint64_t)semaphore;
    *bed_counter("id.queue") = (uint64_t)queue;
    event = eventfd(0, 0);
    snprintf(name, sizeof name, "/fentry-bed-%d", getpid());
    mail = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &sizes);
    mq_unlink(name);
    lock_mine = mkstemp(scratch);
    unlink(scratch);
    snprintf(scratch_path, sizeof scratch_path, "/proc/self/fd/%d", lock_mine);
    lock_other = open(scratch_path, O_RDWR);
    inotify = inotify_init();
    inotify_add_watch(inotify, scratch_path, IN_OPEN);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 4);
    signal_fd = signalfd(-1, &set, 0);
    if (semaphore < 0 || queue < 0 || mail < 0 || lock_other < 0 || inotify < 0 || signal_fd < 0)
        bed_bad("open", errno, 0);
}

int main(int argc, char **argv)
{
    static pthread_t threads[NR_WAITS];
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigset_t all;

    bed_open(argc, argv);
    only = bed_text("only", NULL);
    sent = bed_counter("signals.sent");
    handled = bed_counter("signals.handled");
    sigaction(SIGRTMIN, &action, NULL);
    sigaction(SIGRTMIN + 1, &action, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    open_all();
    for (long i = 0; i < NR_WAITS; i++)
        if (!only || !strcmp(only, waits[i].name)) {
            bed_enter();
            pthread_create(&threads[i], NULL, work, (void *)i);
        }
    bed_ready();
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    while (!BED_LOAD(bed->stop)) {
        feed();
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    while (BED_LOAD(bed->workers)) /* the last rounds still need their feed */
        feed();
    for (long i = 0; i < NR_WAITS; i++)
        if (threads[i])
            pthread_join(threads[i], NULL);
    semctl(semaphore, 0, IPC_RMID);
    msgctl(queue, IPC_RMID, NULL);
    count_pending();
    return bed_end();
}
