/* A program with functions of ggml's names, as one that holds another ggml has. The library must neither clash with them nor call
 * them:
 *
 *     own_ggml MODEL.gguf PICTURE.ppm
 */

#include <lxmert.h>

#include <stdio.h>
#include <stdlib.h>

#include "ppm.h"

void *ggml_init(void);
void ggml_free(void);
void ggml_abort(void);
int ggml_backend_cpu_init(void);

void *ggml_init(void)
{
    abort();
}

void ggml_free(void)
{
    abort();
}

void ggml_abort(void)
{
    abort();
}

int ggml_backend_cpu_init(void)
{
    abort();
}

int main(int argc, char **argv)
{
    if (argc != 3) return 2;
    ppm_image image;
    if (ppm_read(argv[2], &image) != NULL) return 1;
    lxmert_model *model = NULL;
    lxmert_session *session = NULL;
    lxmert_answer best;
    size_t count = 0;
    lxmert_session_options options = LXMERT_SESSION_OPTIONS_INIT;
    /* The lowering that uses ggml most. */
    options.lowering = "ggml";
    options.threads = 1;

    lxmert_status status = lxmert_model_open(argv[1], &model);
    if (status == LXMERT_OK) status = lxmert_session_create(model, &options, &session);
    if (status == LXMERT_OK) status = lxmert_encode_pixels(session, image.rgb, image.width, image.height, 0);
    if (status == LXMERT_OK) status = lxmert_ask(session, "what shape is in the image?", &best, 1, &count);
    if (status == LXMERT_OK) {
        printf("%s\n", best.text);
    } else {
        fprintf(stderr, "%s\n", lxmert_last_error());
    }
    lxmert_session_free(session);
    lxmert_model_free(model);
    ppm_free(&image);
    return status == LXMERT_OK ? 0 : 1;
}
