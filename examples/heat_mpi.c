/* The same as heat.c on several processes: each has some of the rows, and sends them itself.
 *
 *     mpirun -n 4 heat_mpi GRID_SIZE STORED_STEPS FINAL_TIME INITIAL LEFT RIGHT BOTTOM TOP
 */
#include <math.h>
#include <mpi.h>
#include <stdlib.h>

#define MILLSTREAM_IMPLEMENTATION
#include "millstream.h"

int main(int count, char **argument) {
    int rank, ranks;
    MPI_Init(&count, &argument);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (count != 9) {
        fprintf(stderr, "usage: heat_mpi GRID_SIZE STORED_STEPS FINAL_TIME "
                        "INITIAL LEFT RIGHT BOTTOM TOP\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    const int n = atoi(argument[1]), stored_steps = atoi(argument[2]);
    if (ranks > n) {
        fprintf(stderr, "heat_mpi: %d ranks cannot share %d rows\n", ranks, n);
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    const double final_time = atof(argument[3]), initial = atof(argument[4]);
    const double left = atof(argument[5]), right = atof(argument[6]);
    const double bottom = atof(argument[7]), top = atof(argument[8]);

    /* Explicit Euler is stable up to h^2 / 4; this is the largest step below h^2 / 5 that fits. */
    const double h = 1.0 / (n - 1), interval = final_time / (stored_steps - 1);
    const int substeps = (int)ceil(interval / (h * h / 5));
    const double weight = interval / substeps / (h * h);

    /* This rank's rows of the grid are begin ... end - 1; it has a row of its neighbours' on each
     * side of them, so its row y lies at (y - begin + 1) * n. */
    const int begin = rank * n / ranks, end = (rank + 1) * n / ranks, rows = end - begin;
    double *u = malloc(sizeof *u * (rows + 2) * n), *next = malloc(sizeof *u * (rows + 2) * n);
    for (int y = begin - 1; y <= end; y++) {
        for (int x = 0; x < n; x++) {
            const int on_sides = (x == 0) + (x == n - 1) + (y == 0) + (y == n - 1);
            const double sides = (x == 0) * left + (x == n - 1) * right + (y == 0) * bottom
                                 + (y == n - 1) * top;
            const int i = (y - begin + 1) * n + x;
            u[i] = next[i] = on_sides ? sides / on_sides : initial;
        }
    }

    const int below = rank > 0 ? rank - 1 : MPI_PROC_NULL;
    const int above = rank < ranks - 1 ? rank + 1 : MPI_PROC_NULL;
    const size_t shape[2] = {(size_t)rows, (size_t)n}, offset[2] = {(size_t)begin, 0};
    if (millstream_init()) MPI_Abort(MPI_COMM_WORLD, 1);
    for (int step = 0; step < stored_steps; step++) {
        if (millstream_send(step, "temperature", u + n, sizeof *u, 2, shape, offset))
            MPI_Abort(MPI_COMM_WORLD, 1);
        for (int substep = 0; step < stored_steps - 1 && substep < substeps; substep++) {
            MPI_Sendrecv(u + n, n, MPI_DOUBLE, below, 0, u + (rows + 1) * n, n, MPI_DOUBLE, above, 0,
                         MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Sendrecv(u + rows * n, n, MPI_DOUBLE, above, 0, u, n, MPI_DOUBLE, below, 0,
                         MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            for (int y = begin; y < end; y++) {
                if (y == 0 || y == n - 1) continue;
                for (int x = 1; x < n - 1; x++) {
                    const int i = (y - begin + 1) * n + x;
                    next[i] = u[i] + weight * (u[i - 1] + u[i + 1] + u[i - n] + u[i + n] - 4 * u[i]);
                }
            }
            double *before = u;
            u = next;
            next = before;
        }
    }
    free(u);
    free(next);
    if (millstream_finalize()) MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Finalize();
    return 0;
}
