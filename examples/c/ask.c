/* Asks a model about a picture:
 *
 *     ask MODEL.gguf PICTURE.ppm QUESTION...
 *
 * The model must cut its regions from pixels, as models/easy-vqa/easy-vqa-q8_0.gguf does. */

#include <lxmert.h>

#include <stdio.h>

#include "ppm.h"

enum { TOP = 3 };

/* Every failure has a text that says what to do about it. */
static int failed(const char *what, lxmert_status status)
{
    fprintf(stderr, "%s: %s (%s)\n", what, lxmert_last_error(), lxmert_status_name(status));
    return 1;
}

static int show_plan(const lxmert_model *model, const lxmert_session_options *options)
{
    lxmert_memory_plan plan = LXMERT_MEMORY_PLAN_INIT;
    const lxmert_status status = lxmert_plan(model, options, &plan);
    if (status != LXMERT_OK) return failed("plan", status);
    printf("lowering %s, %zu bytes: weights %zu mapped and %zu private, session %zu, tokenizer %zu, labels %zu, other %zu\n",
           plan.lowering, plan.total, plan.weights_mapped, plan.weights_private, plan.session, plan.tokenizer,
           plan.labels, plan.other);
    return 0;
}

static int ask(lxmert_session *session, const char *question)
{
    lxmert_answer answers[TOP];
    size_t count = 0;
    const lxmert_status status = lxmert_ask(session, question, answers, TOP, &count);
    if (status != LXMERT_OK) return failed(question, status);
    printf("%s\n", question);
    for (size_t n = 0; n < count; ++n) {
        /* A model's file may hold no texts; then an answer is known by its number. */
        if (answers[n].text != NULL) {
            printf("  %s", answers[n].text);
        } else {
            printf("  answer %zu", answers[n].label);
        }
        printf("  %.2f %%  (score %.4f)\n", 100.0 * (double)answers[n].softmax, (double)answers[n].logit);
    }
    return 0;
}

static int ask_all(lxmert_session *session, const char *picture, char **questions, int count)
{
    ppm_image image;
    const char *problem = ppm_read(picture, &image);
    if (problem != NULL) {
        fprintf(stderr, "%s: %s\n", picture, problem);
        return 1;
    }
    /* The image is encoded once, however many questions follow. */
    const lxmert_status status = lxmert_encode_pixels(session, image.rgb, image.width, image.height, 0);
    ppm_free(&image);
    if (status != LXMERT_OK) return failed(picture, status);
    for (int n = 0; n < count; ++n) {
        if (ask(session, questions[n]) != 0) return 1;
    }
    return 0;
}

static int run(const lxmert_model *model, const char *picture, char **questions, int count)
{
    lxmert_session_options options = LXMERT_SESSION_OPTIONS_INIT;
    options.threads = 1;
    if (show_plan(model, &options) != 0) return 1;

    lxmert_session *session = NULL;
    const lxmert_status status = lxmert_session_create(model, &options, &session);
    if (status != LXMERT_OK) return failed("session", status);
    const int result = ask_all(session, picture, questions, count);
    lxmert_session_free(session);
    return result;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s MODEL.gguf PICTURE.ppm QUESTION...\n", argv[0]);
        return 2;
    }
    /* The library may be another one than the header that this was compiled with. */
    if (lxmert_abi_version() != LXMERT_ABI_VERSION) {
        fprintf(stderr, "lxmert %s has another interface than this program\n", lxmert_version());
        return 1;
    }
    lxmert_model *model = NULL;
    const lxmert_status status = lxmert_model_open(argv[1], &model);
    if (status != LXMERT_OK) return failed(argv[1], status);
    const int result = run(model, argv[2], argv + 3, argc - 3);
    lxmert_model_free(model);
    return result;
}
