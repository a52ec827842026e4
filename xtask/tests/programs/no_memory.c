/* From a model to an answer, while one request for memory after another is refused by tests/faults/shim.c, which the loader puts before
 * the C library:
 *
 *     no_memory MODEL.gguf PICTURE.ppm
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lxmert.h>

#include "ppm.h"

/* Refusals in each of the two ways, unless LXMERT_EVERY_FAULT=1 asks for all. */
enum { REFUSALS = 100 };

static void (*arm)(long k, int all);
static long (*disarm)(void);
static long (*live)(void);

/* Fetches a function of the shim into a pointer to it. */
static void fetch(void *place, const char *name)
{
    void *function = dlsym(RTLD_DEFAULT, name);
    if (function == NULL) {
        fprintf(stderr, "no %s\n", name);
        exit(1);
    }
    memcpy(place, &function, sizeof function);
}

static lxmert_status answer(const char *path, const ppm_image *picture)
{
    lxmert_session_options options = LXMERT_SESSION_OPTIONS_INIT;
    lxmert_model *model = NULL;
    lxmert_session *session = NULL;
    lxmert_answer best;
    size_t count = 0;
    lxmert_status status = lxmert_model_open(path, &model);
    options.threads = 1;
    if (status == LXMERT_OK)
        status = lxmert_session_create(model, &options, &session);
    if (status == LXMERT_OK)
        status = lxmert_encode_pixels(session, picture->rgb, picture->width, picture->height, 0);
    if (status == LXMERT_OK)
        status = lxmert_ask(session, "is there a circle?", &best, 1, &count);
    lxmert_session_free(session);
    lxmert_model_free(model);
    return status;
}

/* Whether a call that lacked memory said so. A thread that could not be started lacked it too. */
static int is_told(lxmert_status status)
{
    return status == LXMERT_OUT_OF_MEMORY || status == LXMERT_SYSTEM;
}

int main(int count, char **arguments)
{
    ppm_image picture;
    long errors = 0, requests;
    if (count != 3 || ppm_read(arguments[2], &picture) != NULL)
        return 1;
    fetch(&arm, "fault_arm");
    fetch(&disarm, "fault_disarm");
    fetch(&live, "fault_live");
    for (int times = 0; times < 2; ++times) {
        arm(0, 0);
        if (answer(arguments[1], &picture) != LXMERT_OK)
            return 1;
        requests = disarm();
    }
    const char *every = getenv("LXMERT_EVERY_FAULT");
    const long step = every != NULL && strcmp(every, "1") == 0 ? 1 : 1 + requests / REFUSALS;
    for (int all = 0; all < 2; ++all) {
        for (long k = 1; k <= requests; k += step) {
            /* What is made once, to tell of an error, is not made again; what is lost is lost each time. */
            long more = 1;
            for (int times = 0; times < 2 && more != 0; ++times) {
                const long before = live();
                arm(k, all);
                const lxmert_status status = answer(arguments[1], &picture);
                disarm();
                if (status != LXMERT_OK && !is_told(status)) {
                    fprintf(stderr, "request %ld of %ld: %s\n", k, requests, lxmert_last_error());
                    return 1;
                }
                errors += times == 0 && status != LXMERT_OK;
                more = live() - before;
            }
            if (more != 0) {
                fprintf(stderr, "request %ld of %ld: %ld bytes are lost\n", k, requests, more);
                return 1;
            }
        }
        if (answer(arguments[1], &picture) != LXMERT_OK)
            return 1;
    }
    ppm_free(&picture);
    printf("requests %ld\nerrors %ld\n", requests, errors);
    return 0;
}
