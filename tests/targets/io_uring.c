// build: gcc -O2 -pthread io_uring.c -l:liburing.a
// Waits in io_uring_enter for reads of a pipe, polled (IORING_OP_READ) or done by a kernel worker
// thread of the process (workers=1: IOSQE_ASYNC). eintr.io_uring must stay 0; skip=1 if not allowed.
#include "bed.h"
#include <liburing.h>

static int pipe_fds[2];

static void *feed(void *unused)
{
    while (bed_running()) {
        if (write(pipe_fds[1], "x", 1) != 1)
            bed_bad("write", errno, 0);
        bed_nap_us(10000);
    }
    close(pipe_fds[1]);
    return unused;
}

int main(int argc, char **argv)
{
    struct io_uring ring;
    struct io_uring_cqe *done;
    pthread_t feeder;
    char byte;

    bed_open(argc, argv);
    volatile uint64_t *interrupted = bed_counter("eintr.io_uring");
    volatile uint64_t *rounds = bed_counter("n.io_uring");
    int error = io_uring_queue_init(8, &ring, 0);
    if (error || pipe(pipe_fds)) {
        *bed_counter("skip") = 1;
        bed_ready();
        return bed_end();
    }
    pthread_create(&feeder, NULL, feed, NULL);
    long end = bed_now_ns() + bed_number("seconds", 3) * 1000000000L;
    for (int ready = 0, result = 1; result > 0; ++*rounds) {
        struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
        io_uring_prep_read(entry, pipe_fds[0], &byte, 1, 0);
        if (bed_number("workers", 1))
            entry->flags |= IOSQE_ASYNC;
        /* Submitting and waiting in one call may return early with what it submitted, after any
         * signal (io_uring_enter(2)); the wait alone must not be seen to be interrupted. */
        if (io_uring_submit(&ring) != 1)
            bed_bad("io_uring_submit", errno, 0);
        while ((error = io_uring_wait_cqe(&ring, &done)) == -EINTR)
            ++*interrupted;
        if (error < 0)
            bed_bad("io_uring_enter", -error, 0);
        result = done->res; /* 0: the feeder has ended */
        if (result < 0)
            bed_bad("read by io_uring", -result, 1);
        io_uring_cqe_seen(&ring, done);
        if (!ready)
            bed_ready();
        ready = 1;
        if (!getenv("FENTRY_BED") && bed_now_ns() > end)
            bed->stop = 1;
    }
    pthread_join(feeder, NULL);
    io_uring_queue_exit(&ring);
    return bed_end();
}
