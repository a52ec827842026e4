/* Loads through a loader of its own, computes in memory of its own, asks three questions, frees everything, and counts:
 *
 *     ownership MODEL.gguf PICTURE.ppm
 */

#include <lxmert.h>

#include <stdio.h>
#include <stdlib.h>

#include "ppm.h"

static void require(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s: %s\n", what, lxmert_last_error());
        exit(1);
    }
}

struct source {
    FILE *file;
    int closed;
};

static int64_t read_source(void *user_data, void *buffer, size_t size)
{
    struct source *source = user_data;
    /* Fewer bytes than wanted, as a pipe would give. */
    const size_t part = size > 1000 ? 1000 : size;
    const size_t got = fread(buffer, 1, part, source->file);
    return got == 0 && ferror(source->file) ? -1 : (int64_t)got;
}

static int seek_source(void *user_data, uint64_t offset)
{
    struct source *source = user_data;
    return fseek(source->file, (long)offset, SEEK_SET);
}

static void close_source(void *user_data)
{
    struct source *source = user_data;
    fclose(source->file);
    ++source->closed;
}

struct heap {
    size_t allocated, released;
    int allocations, releases;
};

static void *allocate(void *user_data, size_t size, size_t alignment)
{
    struct heap *heap = user_data;
    heap->allocated += size;
    ++heap->allocations;
    /* The size of such memory must be a multiple of its alignment. */
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void release(void *user_data, void *memory, size_t size)
{
    struct heap *heap = user_data;
    heap->released += size;
    ++heap->releases;
    free(memory);
}

int main(int argc, char **argv)
{
    require(argc == 3, "usage");
    struct source source = {fopen(argv[1], "rb"), 0};
    require(source.file != NULL && fseek(source.file, 0, SEEK_END) == 0, argv[1]);
    lxmert_loader loader = LXMERT_LOADER_INIT;
    loader.read = read_source;
    loader.seek = seek_source;
    loader.size = (uint64_t)ftell(source.file);
    loader.close = close_source;
    loader.user_data = &source;
    lxmert_model *model = NULL;
    require(lxmert_model_from_loader(&loader, &model) == LXMERT_OK, "load");

    struct heap heap = {0};
    const lxmert_allocator allocator = {allocate, release, &heap};
    lxmert_session_options options = LXMERT_SESSION_OPTIONS_INIT;
    options.threads = 2;
    options.allocator = &allocator;
    lxmert_memory_plan plan = LXMERT_MEMORY_PLAN_INIT;
    require(lxmert_plan(model, &options, &plan) == LXMERT_OK, "plan");
    require(heap.allocations == 0, "a plan allocated");

    lxmert_session *session = NULL;
    require(lxmert_session_create(model, &options, &session) == LXMERT_OK, "session");
    require(heap.allocations == 1, "the session's memory was not taken in one piece");
    require(heap.allocated == plan.session, "the session's memory is not of the planned size");
    /* The session keeps what it needs of the model. */
    lxmert_model_free(model);

    ppm_image image;
    require(ppm_read(argv[2], &image) == NULL, argv[2]);
    require(lxmert_encode_pixels(session, image.rgb, image.width, image.height, 0) == LXMERT_OK, "encode");
    ppm_free(&image);

    const char *questions[] = {"what shape is in the image?", "what color is the shape?", "is there a circle?"};
    for (int n = 0; n < 3; ++n) {
        lxmert_answer best;
        size_t count = 0;
        require(lxmert_ask(session, questions[n], &best, 1, &count) == LXMERT_OK && count == 1, questions[n]);
        printf("%s\n", best.text);
    }
    /* What fails leaves nothing behind either. */
    lxmert_answer best;
    size_t count = 0;
    require(lxmert_ask(session, "", &best, 1, &count) == LXMERT_INVALID_ARGUMENT, "an empty question");

    require(heap.allocations == 1 && heap.releases == 0, "the session's memory changed while it ran");
    lxmert_session_free(session);
    require(heap.releases == 1 && heap.released == heap.allocated, "the session's memory was not given back");
    require(source.closed == 1, "the loader was not closed once");
    return 0;
}
