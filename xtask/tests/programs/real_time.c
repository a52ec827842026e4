/* Counts what ten thousand runs take from the system, after the first ones: memory, threads, files and page faults.
 *
 * The allocation functions of the C library are replaced by ones that count, so that allocations of Rust, C and C++ are all seen.
 *
 * A question that is text is counted too, as a control: it allocates.
 *
 * Usage: real_time MODEL RUNS THREADS locked|unlocked resident|streamed
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "lxmert.h"

/* glibc's own, behind those that this program replaces. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

static atomic_long allocations;

void *malloc(size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **memory, size_t alignment, size_t size) {
    *memory = memalign(alignment, size);
    return *memory == NULL ? ENOMEM : 0;
}

void free(void *memory) { __libc_free(memory); }

/* What the system has given so far. */
struct counters {
    long allocations, minor_faults, major_faults, threads, files, bytes_read;
};

static long entries(const char *path) {
    DIR *directory = opendir(path);
    long count = 0;
    if (directory == NULL) {
        perror(path);
        exit(1);
    }
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count;
}

/* Bytes that all reads of this process together have returned. */
static long bytes_read(void) {
    FILE *file = fopen("/proc/self/io", "r");
    long bytes = -1;
    if (file == NULL) return 0;
    if (fscanf(file, "rchar: %ld", &bytes) != 1) bytes = -1;
    fclose(file);
    return bytes;
}

/* Bytes that this process has locked in memory. */
static long locked(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long kibibytes = -1;
    if (file == NULL) return -1;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "VmLck: %ld kB", &kibibytes) == 1) break;
    fclose(file);
    return kibibytes * 1024;
}

/* The counters that take nothing themselves come last before the runs, and first after them. */
static struct counters count(int before) {
    struct counters now = {0};
    struct rusage usage;
    if (!before) {
        getrusage(RUSAGE_SELF, &usage);
        now.allocations = atomic_load(&allocations);
    }
    now.threads = entries("/proc/self/task");
    now.files = entries("/proc/self/fd");
    now.bytes_read = bytes_read();
    if (before) {
        getrusage(RUSAGE_SELF, &usage);
        now.allocations = atomic_load(&allocations);
    }
    now.minor_faults = usage.ru_minflt;
    now.major_faults = usage.ru_majflt;
    return now;
}

static void check(lxmert_status status, const char *what) {
    if (status == LXMERT_OK) return;
    fprintf(stderr, "%s: %s: %s\n", what, lxmert_status_name((int32_t)status), lxmert_last_error());
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: real_time MODEL RUNS THREADS locked|unlocked resident|streamed\n");
        return 2;
    }
    const long runs = strtol(argv[2], NULL, 10);
    lxmert_model *model = NULL;
    lxmert_session *session = NULL;
    lxmert_model_info info = LXMERT_MODEL_INFO_INIT;
    lxmert_session_options options = LXMERT_SESSION_OPTIONS_INIT;
    check(lxmert_model_open(argv[1], &model), "lxmert_model_open");
    check(lxmert_model_get_info(model, &info), "lxmert_model_get_info");
    options.max_batch = 2;
    options.max_regions = 64;
    options.threads = (size_t)strtoul(argv[3], NULL, 10);
    options.prefault = true;
    options.lock_memory = strcmp(argv[4], "locked") == 0;
    options.residency = strcmp(argv[5], "streamed") == 0 ? LXMERT_RESIDENCY_STREAMED : LXMERT_RESIDENCY_RESIDENT;
    check(lxmert_session_create(model, &options, &session), "lxmert_session_create");

    const size_t regions = 64, tokens = 12, batch = 2;
    const size_t features = regions * info.feature_size, boxes = regions * info.box_size;
    float *visual_feats = calloc(batch * features, sizeof *visual_feats);
    float *visual_pos = calloc(batch * boxes, sizeof *visual_pos);
    float *mask = calloc(batch * tokens, sizeof *mask);
    uint32_t *ids = calloc(batch * tokens, sizeof *ids);
    uint8_t *pixels = calloc(640 * 480, 3);
    if (!visual_feats || !visual_pos || !mask || !ids || !pixels) return 1;

    struct counters before = {0};
    for (long run = -10; run < runs; run++) {
        if (run == 0) before = count(1);
        /* Numbers, words and sizes that differ from run to run. */
        for (size_t n = 0; n < batch * features; n++) visual_feats[n] = (float)((n * 31 + (size_t)(run + 10) * 7) % 97) / 97;
        for (size_t n = 0; n < batch * boxes; n++) visual_pos[n] = (float)(n % 4) / 4;
        for (size_t n = 0; n < batch * tokens; n++) ids[n] = (uint32_t)((n * 13 + (size_t)(run + 10)) % info.vocab_size);
        for (size_t n = 0; n < batch * tokens; n++) mask[n] = n % tokens < 4 + (size_t)(run + 10) % 8;
        const size_t some = 1 + (size_t)(run + 10) % regions;
        const size_t length = 3 + (size_t)(run + 10) % (tokens - 3);
        lxmert_answer answers[3];
        size_t answer_count;
        check(lxmert_encode_regions(session, visual_feats, visual_pos, some), "lxmert_encode_regions");
        check(lxmert_ask_tokens(session, ids, length, answers, 3, &answer_count), "lxmert_ask_tokens");
        /* Every picture has another size; a tenth of the runs is enough for what takes most of the time. */
        if (run % 10 == 0) {
            const uint32_t width = 320 + (uint32_t)((run + 10) % 321), height = 480;
            check(lxmert_encode_pixels(session, pixels, width, height, 640 * 3), "lxmert_encode_pixels");
            check(lxmert_ask_tokens(session, ids, length, answers, 3, &answer_count), "lxmert_ask_tokens");
        }
        lxmert_inputs inputs = LXMERT_INPUTS_INIT;
        inputs.batch = batch;
        inputs.tokens = tokens;
        inputs.regions = 36;
        inputs.input_ids = ids;
        inputs.attention_mask = mask;
        inputs.visual_feats = visual_feats;
        inputs.visual_pos = visual_pos;
        check(lxmert_run(session, &inputs), "lxmert_run");
        lxmert_tensor tensor = LXMERT_TENSOR_INIT;
        check(lxmert_output(session, "question_answering_score", &tensor), "lxmert_output");
        if (tensor.rank != 2 || tensor.shape[0] != batch) return 1;
    }
    struct counters after = count(0);

    /* What counting itself has read and opened is the same both times, and is taken off by a third count. */
    struct counters again = count(1);
    printf("allocations %ld\n", after.allocations - before.allocations);
    printf("minor_faults %ld\n", after.minor_faults - before.minor_faults);
    printf("major_faults %ld\n", after.major_faults - before.major_faults);
    printf("threads %ld\n", after.threads - before.threads);
    printf("files %ld\n", after.files - before.files);
    printf("bytes_read %ld\n", (after.bytes_read - before.bytes_read) - (again.bytes_read - after.bytes_read));

    const long silent = atomic_load(&allocations);
    lxmert_answer answer;
    size_t answer_count;
    check(lxmert_encode_regions(session, visual_feats, visual_pos, regions), "lxmert_encode_regions");
    check(lxmert_ask(session, "what color is the shape?", &answer, 1, &answer_count), "lxmert_ask");
    lxmert_memory_plan plan = LXMERT_MEMORY_PLAN_INIT;
    check(lxmert_plan(model, &options, &plan), "lxmert_plan");
    printf("unlocked %ld\n", (long)(plan.session + plan.weights_private + plan.weights_mapped) - locked());
    printf("control %ld\n", atomic_load(&allocations) - silent);

    lxmert_session_free(session);
    lxmert_model_free(model);
    free(visual_feats);
    free(visual_pos);
    free(mask);
    free(ids);
    free(pixels);
    return 0;
}
