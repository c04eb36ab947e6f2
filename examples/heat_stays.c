/* The same as heat.c in a program that stays: it asks for one simulation after the other, and is told
 * the five temperatures of each.
 *
 *     heat_stays GRID_SIZE STORED_STEPS FINAL_TIME
 */
#include <math.h>
#include <stdlib.h>

#define MILLSTREAM_IMPLEMENTATION
#include "millstream.h"

/* Send all stored steps of one simulation; return 0, or -1 if that fails. */
static int simulate(int n, int stored_steps, double final_time, const double *temperatures, double *u,
                    double *next) {
    const double initial = temperatures[0], left = temperatures[1], right = temperatures[2];
    const double bottom = temperatures[3], top = temperatures[4];

    /* Explicit Euler is stable up to h^2 / 4; this is the largest step below h^2 / 5 that fits. */
    const double h = 1.0 / (n - 1), interval = final_time / (stored_steps - 1);
    const int substeps = (int)ceil(interval / (h * h / 5));
    const double weight = interval / substeps / (h * h);

    /* u[y * n + x]; the outermost nodes lie on the sides, a corner has the mean of its two. */
    for (int y = 0; y < n; y++) {
        for (int x = 0; x < n; x++) {
            const int on_sides = (x == 0) + (x == n - 1) + (y == 0) + (y == n - 1);
            const double sides = (x == 0) * left + (x == n - 1) * right + (y == 0) * bottom
                                 + (y == n - 1) * top;
            u[y * n + x] = next[y * n + x] = on_sides ? sides / on_sides : initial;
        }
    }

    const size_t shape[2] = {(size_t)n, (size_t)n};
    for (int step = 0; step < stored_steps; step++) {
        if (millstream_send(step, "temperature", u, sizeof *u, 2, shape, NULL)) return -1;
        for (int substep = 0; step < stored_steps - 1 && substep < substeps; substep++) {
            for (int y = 1; y < n - 1; y++) {
                for (int x = 1; x < n - 1; x++) {
                    const int i = y * n + x;
                    next[i] = u[i] + weight * (u[i - 1] + u[i + 1] + u[i - n] + u[i + n] - 4 * u[i]);
                }
            }
            double *before = u;
            u = next;
            next = before;
        }
    }
    return 0;
}

int main(int count, char **argument) {
    if (count != 4) {
        fprintf(stderr, "usage: heat_stays GRID_SIZE STORED_STEPS FINAL_TIME\n");
        return 2;
    }
    const int n = atoi(argument[1]), stored_steps = atoi(argument[2]);
    const double final_time = atof(argument[3]);
    double temperatures[5], *u = malloc(sizeof *u * n * n), *next = malloc(sizeof *u * n * n);
    int more;

    if (millstream_init()) return 1;
    while ((more = millstream_next(temperatures, 5, NULL)) == 1) {
        printf("initial temperature %g K\n", temperatures[0]);
        fflush(stdout); /* else it stays in this program until much is printed */
        if (simulate(n, stored_steps, final_time, temperatures, u, next)) return 1;
    }
    free(u);
    free(next);
    return more || millstream_finalize() ? 1 : 0;
}
