/* Sends the fields of a simulation to Millstream, which has started this program.
 *
 *     millstream_init();
 *     for (int step = 0; step < steps; step++) {
 *         ...
 *         millstream_send(step, "temperature", u, sizeof u[0], 2, shape, offset);
 *     }
 *     millstream_finalize();
 *
 * A program that stays for many simulations asks for each of them after init:
 *
 *     while ((more = millstream_next(parameters, 2, &seed)) == 1) {
 *         for (int step = 0; step < steps; step++) ...
 *     }
 *     millstream_finalize();
 *
 * One file of a program defines MILLSTREAM_IMPLEMENTATION before it includes this header; or the
 * header is compiled by itself: cc -c -x c -DMILLSTREAM_IMPLEMENTATION millstream.h. C99 or C++11.
 * Each process (rank) that has a part of the fields makes all calls, from one thread. They return 0; or -1 after a line on standard error, and then the program should end with an error.
 * The format is described in docs/how-to/external.md.
 */
#ifndef MILLSTREAM_H
#define MILLSTREAM_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Connect. Call it once, before the first send. */
int millstream_init(void);

/* Send this process's part of a stored step; the initial state is step 0. It returns when the part
 * is on its way, and so waits while Millstream does. A process sends at least one part of each
 * step, in order.
 * field: one of the study's fields; or NULL: all of them, as a first axis before the grid's.
 * data: the numbers, the last axis fastest; bytes: the size of one, 4 (float) or 8 (double).
 * axes: how many there are; shape, offset: the part's size and where it begins along each of them.
 * offset NULL: at the origin. */
int millstream_send(int step, const char *field, const void *data, size_t bytes, int axes,
                    const size_t *shape, const size_t *offset);

/* Wait for the next simulation, in a study with `stays: true`; every rank is told the same ones.
 * Return 1 if there is one, 0 if there are no more, -1 as the other calls do.
 * parameters: filled in, in the order of the study; count: how many there are; seed: filled in, from
 * 0 to 2^63 - 1, if it is not NULL. */
int millstream_next(double *parameters, int count, long long *seed);

/* Say that all is sent, and disconnect. A simulation that ends without it has failed. */
int millstream_finalize(void);

#ifdef __cplusplus
}
#endif
#endif

#ifdef MILLSTREAM_IMPLEMENTATION

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Millstream takes little-endian numbers"
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static int millstream_socket = -1;
static int millstream_no_more = 0; /* simulations: Millstream has closed the connection */

static int millstream_failed(const char *what, const char *why) {
    fprintf(stderr, "millstream: %s: %s\n", what, why);
    return -1;
}

static int millstream_write(const void *data, size_t size) {
    const char *next = (const char *)data;
    while (size > 0) {
        ssize_t sent = send(millstream_socket, next, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return millstream_failed("cannot send", strerror(errno));
        next += sent;
        size -= (size_t)sent;
    }
    return 0;
}

int millstream_init(void) {
    const char *path = getenv("MILLSTREAM_ADDRESS"), *token = getenv("MILLSTREAM_TOKEN");
    struct sockaddr_un address;
    char line[256];
    int size;
    if (millstream_socket >= 0) return millstream_failed("init", "called twice");
    if (!path || !token)
        return millstream_failed("init", "MILLSTREAM_ADDRESS is not set: Millstream sets it");
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    size = snprintf(line, sizeof line, "{\"millstream\": 2, \"token\": \"%s\"}\n", token);
    if (strlen(path) >= sizeof address.sun_path || size >= (int)sizeof line)
        return millstream_failed("init", "MILLSTREAM_ADDRESS or MILLSTREAM_TOKEN is too long");
    strcpy(address.sun_path, path);
    millstream_socket = socket(AF_UNIX, SOCK_STREAM, 0);
    if (millstream_socket < 0) return millstream_failed("cannot make a socket", strerror(errno));
    if (connect(millstream_socket, (struct sockaddr *)&address, sizeof address) < 0) {
        int error = errno;
        close(millstream_socket);
        millstream_socket = -1;
        return millstream_failed("cannot connect", strerror(error));
    }
    return millstream_write(line, (size_t)size);
}

/* Append "name": [values] to the line, which is long enough for four axes. */
static void millstream_list(char *line, const char *name, int axes, const size_t *values) {
    int axis;
    sprintf(line + strlen(line), ", \"%s\": [", name);
    for (axis = 0; axis < axes; axis++)
        sprintf(line + strlen(line), "%s%zu", axis ? ", " : "", values ? values[axis] : (size_t)0);
    strcat(line, "]");
}

int millstream_send(int step, const char *field, const void *data, size_t bytes, int axes,
                    const size_t *shape, const size_t *offset) {
    char line[1024];
    size_t size = bytes;
    int axis;
    if (millstream_socket < 0) return millstream_failed("send", "called before init");
    if ((bytes != 4 && bytes != 8) || axes < 1 || axes > 4 || (field && strlen(field) > 500))
        return millstream_failed("send", "a number has 4 or 8 bytes, an array 1 to 4 axes");
    for (axis = 0; axis < axes; axis++) size *= shape[axis];
    sprintf(line, "{\"step\": %d, \"dtype\": \"float%d\"", step, (int)bytes * 8);
    if (field) sprintf(line + strlen(line), ", \"field\": \"%s\"", field);
    millstream_list(line, "shape", axes, shape);
    millstream_list(line, "offset", axes, offset);
    strcat(line, "}\n");
    return millstream_write(line, strlen(line)) ? -1 : millstream_write(data, size);
}

/* Read so many bytes; return 1, or 0 if the connection was closed before the first, or -1. */
static int millstream_read(void *data, size_t size) {
    char *next = (char *)data;
    size_t left = size;
    while (left > 0) {
        ssize_t came = recv(millstream_socket, next, left, 0);
        if (came < 0 && errno == EINTR) continue;
        if (came < 0 && errno == ECONNRESET) came = 0;
        if (came < 0) return millstream_failed("cannot receive", strerror(errno));
        if (came == 0 && left == size) return 0;
        if (came == 0) return millstream_failed("next", "Millstream has broken off");
        next += came;
        left -= (size_t)came;
    }
    return 1;
}

int millstream_next(double *parameters, int count, long long *seed) {
    const char request[] = "{\"next\": true}\n";
    char line[256];
    int used = 0, number = 0, simulation = 0, came;
    long long its_seed = 0;
    if (millstream_socket < 0) return millstream_failed("next", "called before init");
    if (millstream_no_more) return 0;
    if (millstream_write(request, sizeof request - 1)) return -1;
    do {
        came = millstream_read(line + used, 1);
        if (came == 0 && used == 0) {
            millstream_no_more = 1;
            return 0;
        }
        if (came <= 0) return -1;
    } while (line[used++] != '\n' && used < (int)sizeof line - 1);
    line[used] = 0;
    if (sscanf(line, "{\"simulation\": %d, \"seed\": %lld, \"parameters\": %d}", &simulation,
               &its_seed, &number) != 3)
        return millstream_failed("next", "the answer is not understood");
    if (number != count) {
        fprintf(stderr, "millstream: next: the study has %d parameters, not %d\n", number, count);
        return -1;
    }
    if (seed) *seed = its_seed;
    return count ? (millstream_read(parameters, (size_t)count * sizeof *parameters) == 1 ? 1 : -1)
                 : 1;
}

int millstream_finalize(void) {
    const char end[] = "{\"end\": true}\n";
    int failed;
    if (millstream_socket < 0) return millstream_failed("finalize", "called before init");
    failed = millstream_no_more ? 0 : millstream_write(end, sizeof end - 1);
    close(millstream_socket);
    millstream_socket = -1;
    return failed;
}

#undef MILLSTREAM_IMPLEMENTATION /* so that the header can be included again */
#endif
