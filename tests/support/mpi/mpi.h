/* Stands in for MPI where there is none, with what examples/heat_mpi.c uses of it: the ranks are
 * forked from MPI_Init, as many as FAKE_MPI_RANKS says, and neighbours are joined by sockets. */
#ifndef FAKE_MPI_H
#define FAKE_MPI_H

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MPI_COMM_WORLD 0
#define MPI_DOUBLE 8
#define MPI_PROC_NULL -1
#define MPI_STATUS_IGNORE NULL

static int fake_rank, fake_ranks, fake_below, fake_above; /* sockets to the neighbours */

static void MPI_Init(int *count, char ***arguments) {
    (void)count, (void)arguments;
    fake_ranks = atoi(getenv("FAKE_MPI_RANKS"));
    for (fake_rank = fake_ranks - 1; fake_rank > 0; fake_rank--) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) abort();
        if (fork() > 0) { /* this rank; the next one is its child */
            fake_below = pair[0];
            close(pair[1]);
            return;
        }
        fake_above = pair[1];
        close(pair[0]);
    }
}

static void MPI_Abort(int world, int status) { (void)world, exit(status); }
static void MPI_Comm_rank(int world, int *rank) { (void)world, *rank = fake_rank; }
static void MPI_Comm_size(int world, int *ranks) { (void)world, *ranks = fake_ranks; }

static void fake_transfer(int rank, char *data, int size, ssize_t (*move)(int, void *, size_t)) {
    for (int done = 0; rank != MPI_PROC_NULL && done < size;) {
        ssize_t moved = move(rank < fake_rank ? fake_below : fake_above, data + done, size - done);
        if (moved <= 0) abort();
        done += moved;
    }
}

static ssize_t fake_write(int to, void *data, size_t size) { return write(to, data, size); }

/* A row fits into a socket, so everybody can send first. */
static void MPI_Sendrecv(void *out, int size, int type, int to, int tag, void *in, int size_in,
                         int type_in, int from, int tag_in, int world, void *status) {
    (void)tag, (void)size_in, (void)type_in, (void)tag_in, (void)world, (void)status;
    fake_transfer(to, (char *)out, size * type, fake_write);
    fake_transfer(from, (char *)in, size * type, read);
}

static void MPI_Finalize(void) {
    int status = 0;
    if (fake_rank > 0 && (wait(&status) < 0 || status)) exit(1);
}

#endif
