/* Heat conduction on the unit square, du/dt = d2u/dx2 + d2u/dy2, each side held at its temperature:
 * the equation of the solver `heat`, by central differences in space and explicit Euler steps.
 *
 *     heat GRID_SIZE STORED_STEPS FINAL_TIME INITIAL LEFT RIGHT BOTTOM TOP
 */
#include <math.h>
#include <stdlib.h>

#define MILLSTREAM_IMPLEMENTATION
#include "millstream.h"

int main(int count, char **argument) {
    if (count != 9) {
        fprintf(stderr, "usage: heat GRID_SIZE STORED_STEPS FINAL_TIME "
                        "INITIAL LEFT RIGHT BOTTOM TOP\n");
        return 2;
    }
    const int n = atoi(argument[1]), stored_steps = atoi(argument[2]);
    const double final_time = atof(argument[3]), initial = atof(argument[4]);
    const double left = atof(argument[5]), right = atof(argument[6]);
    const double bottom = atof(argument[7]), top = atof(argument[8]);

    /* Explicit Euler is stable up to h^2 / 4; this is the largest step below h^2 / 5 that fits. */
    const double h = 1.0 / (n - 1), interval = final_time / (stored_steps - 1);
    const int substeps = (int)ceil(interval / (h * h / 5));
    const double weight = interval / substeps / (h * h);

    /* u[y * n + x]; the outermost nodes lie on the sides, a corner has the mean of its two. */
    double *u = malloc(sizeof *u * n * n), *next = malloc(sizeof *u * n * n);
    for (int y = 0; y < n; y++) {
        for (int x = 0; x < n; x++) {
            const int on_sides = (x == 0) + (x == n - 1) + (y == 0) + (y == n - 1);
            const double sides = (x == 0) * left + (x == n - 1) * right + (y == 0) * bottom
                                 + (y == n - 1) * top;
            u[y * n + x] = next[y * n + x] = on_sides ? sides / on_sides : initial;
        }
    }

    const size_t shape[2] = {(size_t)n, (size_t)n};
    if (millstream_init()) return 1;
    for (int step = 0; step < stored_steps; step++) {
        if (millstream_send(step, "temperature", u, sizeof *u, 2, shape, NULL)) return 1;
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
    free(u);
    free(next);
    return millstream_finalize() ? 1 : 0;
}
