/* lxmert: embedded inference for the LXMERT vision-and-language model. Copyright: see LICENSE (MIT).
 *
 * A model is one GGUF file, loaded once and shared. A session runs it: it encodes an image, then answers questions about it.
 *
 * Example
 *
 *     #include <lxmert.h>
 *     #include <stdio.h>
 *
 *     // Asks a model of the patch-grid kind about width x height pixels of 8-bit RGB.
 *     int ask(const char *path, const uint8_t *rgb, uint32_t width, uint32_t height, const char *question)
 *     {
 *         lxmert_model *model = NULL;
 *         lxmert_session *session = NULL;
 *         lxmert_answer best[3];
 *         size_t count = 0;
 *         lxmert_session_options options = LXMERT_SESSION_OPTIONS_INIT;
 *         options.max_tokens = 32;
 *
 *         lxmert_status status = lxmert_model_open(path, &model);
 *         if (status == LXMERT_OK) status = lxmert_session_create(model, &options, &session);
 *         if (status == LXMERT_OK) status = lxmert_encode_pixels(session, rgb, width, height, 0);
 *         if (status == LXMERT_OK) status = lxmert_ask(session, question, best, 3, &count);
 *         if (status != LXMERT_OK)
 *             fprintf(stderr, "%s: %s\n", lxmert_status_name(status), lxmert_last_error());
 *         for (size_t n = 0; n < count; ++n)
 *             printf("%.3f %s\n", best[n].softmax, best[n].text ? best[n].text : "(no text)");
 *
 *         lxmert_session_free(session);
 *         lxmert_model_free(model);
 *         return status;
 *     }
 *
 * For a model that takes features of a detector, lxmert_encode_regions takes the place of lxmert_encode_pixels.
 *
 * Rules
 *
 * Handles. lxmert_model and lxmert_session are made by a function whose last parameter is out, and freed by the function of
 * their name that ends in _free. A handle that is NULL, of the other kind or freed is mostly found out and refused with
 * LXMERT_INVALID_ARGUMENT; do not rely on it for freed ones.
 *
 * Threads. A model never changes: any threads may use it at once. A session is for one call at a time, from any thread; another
 * call meanwhile returns LXMERT_BUSY at once, but for the few functions that say otherwise. For several threads make several
 * sessions of one model, which share its weights.
 *
 * Errors. A function that can fail returns lxmert_status. Then lxmert_last_error has one line that says what is wrong and what
 * to do, for the calling thread; lxmert_session_last_error has that of a session, for any thread. After any failure all
 * objects stay usable, and all results that are handles, strings, counts and structs are NULL or 0 unless the function says
 * otherwise. LXMERT_OUT_OF_MEMORY and LXMERT_INTERNAL, a fault of the library itself, may come from every function with a status, also
 * where its table does not name them.
 *
 * Memory. Where there is none, a call returns LXMERT_OUT_OF_MEMORY and leaves nothing behind. Small blocks that the system refuses come
 * from a reserve of 16 MiB in the library for the rest of the call. Until then the reserve takes no memory, unless the process locks all of
 * its own (mlockall). Where the reserve is used up, or memory runs out in the moment in which a thread starts or first calls a library that
 * was loaded with dlopen, the process ends with a line such as "memory allocation of N bytes failed". A copy of the library that was built
 * by hand needs the feature c-library for all this.
 *
 * Structs that begin with struct_size. Initialise them with the macro of their name that ends in _INIT, which sets struct_size
 * and zeros the rest; zero or NULL in an option is its default. Later versions append fields: the library takes the shorter
 * structs of programs that were compiled before, with defaults for what they lack, and fills in no more of a result than the
 * program has room for. A struct_size that no version had, or larger than the library knows, is LXMERT_INVALID_ARGUMENT.
 *
 * Enumerations stand as int32_t in structs; a number that is none of theirs is LXMERT_INVALID_ARGUMENT. Strings are UTF-8
 * and end with a NUL. Pointers must not be NULL unless it says so. What a function reads, it reads during the call only unless it
 * says otherwise. Sizes of memory are in bytes, of arrays in elements.
 *
 * Callbacks must return: no exception and no longjmp may leave them. They must not call functions with the session that they are
 * called for, lxmert_session_cancel apart; a loader's and progress not with the model either. Such a call may wait for itself.
 *
 * Every function ends with a table: whether it allocates memory, whether threads may call it at once, what it waits for, and how it
 * fails. In a run, a session computes in what it took when it was made. That holds for the project's own kernels; with the lowering
 * ggml, operations allocate. Without a lowering in the options a session ends there on a CPU that has no kernels, and a memory budget
 * may choose it: lxmert_session_info tells. */


#ifndef LXMERT_H
#define LXMERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
/* A struct of zeros with its struct_size. */
extern "C++" {
template <typename Struct> inline Struct lxmert_sized() noexcept
{
    Struct value{};
    value.struct_size = sizeof(Struct);
    return value;
}
}
#define LXMERT_SIZED(type) (lxmert_sized<type>())
#else
#define LXMERT_SIZED(type) { .struct_size = sizeof(type) }
#endif

/* Initial values of the structs that begin with struct_size. */
#define LXMERT_LOADER_INIT LXMERT_SIZED(lxmert_loader)
#define LXMERT_DEVICE_INFO_INIT LXMERT_SIZED(lxmert_device_info)
#define LXMERT_MODEL_INFO_INIT LXMERT_SIZED(lxmert_model_info)
#define LXMERT_SESSION_OPTIONS_INIT LXMERT_SIZED(lxmert_session_options)
#define LXMERT_MEMORY_PLAN_INIT LXMERT_SIZED(lxmert_memory_plan)
#define LXMERT_SESSION_INFO_INIT LXMERT_SIZED(lxmert_session_info)
#define LXMERT_INPUTS_INIT LXMERT_SIZED(lxmert_inputs)
#define LXMERT_TENSOR_INIT LXMERT_SIZED(lxmert_tensor)

/**
 * The version of this interface. A program is compiled for the header's; the library tells its own by lxmert_abi_version.
 */
#define LXMERT_ABI_VERSION 1

/**
 * The alignment in bytes of memory that a caller provides: a cache line.
 */
#define LXMERT_MEMORY_ALIGNMENT 64

/**
 * What became of a call. Numbers never change; later versions may add some.
 */
typedef enum lxmert_status {
    /**
     * Done.
     */
    LXMERT_OK = 0,
    /**
     * An argument that the function cannot take: NULL, a wrong size or enumeration, a tensor of the wrong shape or with numbers
     * out of range, a question without words.
     */
    LXMERT_INVALID_ARGUMENT = 1,
    /**
     * A file could not be opened or read, or a loader failed.
     */
    LXMERT_IO = 2,
    /**
     * The model's file breaks a rule, is of another architecture, or is packed for other kernels.
     */
    LXMERT_INVALID_MODEL = 3,
    /**
     * Memory could not be had. Everything that was there before still works.
     */
    LXMERT_OUT_OF_MEMORY = 4,
    /**
     * More tokens, regions or pairs than the session was made for, or than the model can take, or a session of more memory than any
     * may take (16 GiB).
     */
    LXMERT_LIMIT = 5,
    /**
     * Something that the model does not have (a tokenizer, answers, a front end for pixels) or the machine cannot do.
     */
    LXMERT_UNSUPPORTED = 6,
    /**
     * A question was asked while no single image is encoded.
     */
    LXMERT_NO_IMAGE = 7,
    /**
     * An output that the session was not made to compute, or nothing has run yet.
     */
    LXMERT_NOT_REQUESTED = 8,
    /**
     * Given up, as lxmert_session_cancel, the abort callback or the progress callback asked.
     */
    LXMERT_CANCELLED = 9,
    /**
     * The session's time limit was reached.
     */
    LXMERT_TIME_LIMIT = 10,
    /**
     * No way to run fits the memory budget; the text names the smallest that would.
     */
    LXMERT_BUDGET = 11,
    /**
     * Another thread uses the session at the moment.
     */
    LXMERT_BUSY = 12,
    /**
     * Scores that are no numbers: an intermediate result left the range of the weights' type.
     */
    LXMERT_NOT_FINITE = 13,
    /**
     * The operating system gave no threads or did not lock memory.
     */
    LXMERT_SYSTEM = 14,
    /**
     * A fault of the library itself. Its objects stay usable.
     */
    LXMERT_INTERNAL = 15,
    /**
     * A device beside the CPU, or its driver, failed: free the session, and make one with device "cpu".
     */
    LXMERT_DEVICE = 16,
} lxmert_status;

/**
 * How much a message matters.
 */
typedef enum lxmert_log_level {
    /**
     * Something failed that no status tells.
     */
    LXMERT_LOG_ERROR = 1,
    /**
     * Something is not as it should be, and works all the same.
     */
    LXMERT_LOG_WARN = 2,
    /**
     * What was loaded and made, and how it runs.
     */
    LXMERT_LOG_INFO = 3,
    /**
     * What helps to find a fault.
     */
    LXMERT_LOG_DEBUG = 4,
} lxmert_log_level;

/**
 * What stands on top of a model's encoders.
 */
typedef enum lxmert_head {
    /**
     * Hidden states and the pooled output only.
     */
    LXMERT_HEAD_NONE = 0,
    /**
     * Masked words, image-text match and, as trained, answers and objects.
     */
    LXMERT_HEAD_PRETRAINING = 1,
    /**
     * Answers to questions.
     */
    LXMERT_HEAD_QUESTION_ANSWERING = 2,
    /**
     * Whether a statement is true of two images: a batch of two for every answer.
     */
    LXMERT_HEAD_NLVR2 = 3,
} lxmert_head;

/**
 * How an image becomes regions.
 */
typedef enum lxmert_front_end {
    /**
     * Only from ready features: the detector is not part of the model.
     */
    LXMERT_FRONT_END_REGIONS = 0,
    /**
     * From pixels, by cutting the image into patches.
     */
    LXMERT_FRONT_END_PATCH_GRID = 1,
} lxmert_front_end;

/**
 * Where the weights are while a session runs.
 */
typedef enum lxmert_residency {
    /**
     * The fastest that the memory budget allows.
     */
    LXMERT_RESIDENCY_AUTO = 0,
    /**
     * In memory of their own, in the order in which the kernels read them. All sessions of a model share it.
     */
    LXMERT_RESIDENCY_RESIDENT = 1,
    /**
     * Used where the file is mapped: the operating system may evict what is not in use, and reads it again when it is.
     */
    LXMERT_RESIDENCY_MAPPED = 2,
    /**
     * Read from the file when their turn comes, in every run, with room for the matrices of two operations. With a memory budget,
     * as many as it has room for are in memory of their own all the same.
     */
    LXMERT_RESIDENCY_STREAMED = 3,
    /**
     * In the memory of a device beside the CPU, which computes with them there.
     */
    LXMERT_RESIDENCY_DEVICE = 4,
} lxmert_residency;

/**
 * A model: weights, tokenizer and answers of one file. It never changes, and any number of sessions on any threads share it.
 */
typedef struct lxmert_model lxmert_model;

/**
 * What runs a model: the memory of a run, and the state between an image and its questions. One thread uses it at a time;
 * only lxmert_session_cancel, lxmert_session_last_error and lxmert_session_get_info may be called meanwhile.
 */
typedef struct lxmert_session lxmert_session;

/**
 * What is known of a device beside the CPU.
 */
typedef struct lxmert_device_info {
    /**
     * sizeof(lxmert_device_info): LXMERT_DEVICE_INFO_INIT sets it.
     */
    size_t struct_size;
    /**
     * What the device of lxmert_session_options calls it by, such as "cuda:0". Valid for as long as the library is loaded.
     */
    const char *name;
    /**
     * What its driver calls it. Valid for as long as the library is loaded.
     */
    const char *description;
    /**
     * Bytes of its memory.
     */
    size_t memory;
    /**
     * Bytes of them that nobody uses, as its driver counts.
     */
    size_t free_memory;
    /**
     * Whether it shares the CPU's memory.
     */
    bool integrated;
} lxmert_device_info;

/**
 * Takes one message: its level, one of lxmert_log_level; one line of UTF-8 that is valid during the call; and the pointer given
 * to lxmert_set_log. It is called from any thread, also from several at once. It must not call lxmert_set_log, nor functions with
 * the model or session that the message is about.
 */
typedef void (*lxmert_log_callback)(int32_t level, const char *message, void *user_data);

/**
 * A source of the caller's own for a model's file: an archive, flash memory, a network. The library never calls two of its
 * functions at once, but may call them from any thread. They must not call functions with the model or its sessions, which may
 * wait for them.
 */
typedef struct lxmert_loader {
    /**
     * sizeof(lxmert_loader): LXMERT_LOADER_INIT sets it.
     */
    size_t struct_size;
    /**
     * Reads up to size bytes from the current place, which moves on by as many, into buffer. Returns how many it has read, which
     * may be fewer; 0 at the end; a negative number if it fails.
     */
    int64_t (*read)(void *user_data, void *buffer, size_t size);
    /**
     * Makes offset, in bytes from the start of the file, the current place. Returns 0 unless it fails. It is called before the first
     * read.
     */
    int (*seek)(void *user_data, uint64_t offset);
    /**
     * Size of the file in bytes.
     */
    uint64_t size;
    /**
     * Called once, when the library reads no more: when the model and all its sessions are freed, or when loading has failed. May be
     * NULL. The one exception: a call that returns LXMERT_INVALID_ARGUMENT has not taken the loader, and does not close it.
     */
    void (*close)(void *user_data);
    /**
     * Given to every function.
     */
    void *user_data;
} lxmert_loader;

/**
 * What a model is.
 */
typedef struct lxmert_model_info {
    /**
     * sizeof(lxmert_model_info): LXMERT_MODEL_INFO_INIT sets it.
     */
    size_t struct_size;
    /**
     * One of lxmert_head.
     */
    int32_t head;
    /**
     * One of lxmert_front_end.
     */
    int32_t front_end;
    /**
     * Answers that the model tells apart; 0 without an answer head.
     */
    size_t label_count;
    /**
     * Whether the file holds the answers' texts.
     */
    bool has_label_texts;
    /**
     * Whether the file holds a tokenizer, so that lxmert_ask takes questions as text.
     */
    bool has_tokenizer;
    /**
     * Images that one answer is about: 1, or 2 for NLVR2.
     */
    size_t images_per_answer;
    /**
     * Width of every hidden state.
     */
    size_t hidden_size;
    /**
     * Rows of the word embedding: token ids are below it.
     */
    size_t vocab_size;
    /**
     * The longest question in tokens that a session can be made for, [CLS] and [SEP] included.
     */
    size_t max_tokens;
    /**
     * The most regions of an image that a session can be made for.
     */
    size_t max_regions;
    /**
     * The most pairs of image and question in one run that a session can be made for.
     */
    size_t max_batch;
    /**
     * Features of one region.
     */
    size_t feature_size;
    /**
     * Numbers of one region's box.
     */
    size_t box_size;
    /**
     * Patches from top to bottom; 0 without a patch grid.
     */
    size_t grid_rows;
    /**
     * Patches from left to right; 0 without a patch grid.
     */
    size_t grid_columns;
    /**
     * How many numbers the weights are.
     */
    uint64_t parameters;
    /**
     * Size of the file in bytes.
     */
    uint64_t file_bytes;
} lxmert_model_info;

/**
 * Where a session gets its memory from: one block, taken while the session is made. Both functions are needed, and must not call
 * functions with the session. The struct has no struct_size, and never changes.
 */
typedef struct lxmert_allocator {
    /**
     * Returns size bytes that begin at a multiple of alignment, or NULL if it cannot. Called once, on the thread that makes the
     * session.
     */
    void *(*allocate)(void *user_data, size_t size, size_t alignment);
    /**
     * Takes them back. Called once, on the thread that frees the session, or if it could not be made.
     */
    void (*release)(void *user_data, void *memory, size_t size);
    /**
     * Given to both functions.
     */
    void *user_data;
} lxmert_allocator;

/**
 * What a session is made for. Zero or NULL always means the default.
 */
typedef struct lxmert_session_options {
    /**
     * sizeof(lxmert_session_options): LXMERT_SESSION_OPTIONS_INIT sets it.
     */
    size_t struct_size;
    /**
     * The longest question in tokens, [CLS] and [SEP] included. Default: what the model takes, up to 512.
     */
    size_t max_tokens;
    /**
     * The most regions of an image. Default: the patches of a patch grid, else 100.
     */
    size_t max_regions;
    /**
     * The most pairs of image and question in one lxmert_run. Default: the images that one answer is about.
     */
    size_t max_batch;
    /**
     * The threads that compute, the calling one included. Default: all cores, or one for a small model.
     */
    size_t threads;
    /**
     * The CPUs that threads other than the calling one may run on, cpu_count of them, by the system's numbers. Linux only.
     * Default: all.
     */
    const uint32_t *cpus;
    /**
     * How many cpus are listed, at most 4096.
     */
    size_t cpu_count;
    /**
     * How the model is computed: "ggml", or an instruction set such as "avx2". Default: "fastest", the fastest that the CPU has.
     */
    const char *lowering;
    /**
     * What every run computes, output_count names as lxmert_output takes them, or whole lists, such as "vision_attentions". Nothing
     * else is computed. Default: the answers' scores, or the pooled output of a model without answers.
     */
    const char *const *outputs;
    /**
     * How many outputs are listed, at most 1024.
     */
    size_t output_count;
    /**
     * Whether lxmert_run is to take inputs_embeds too.
     */
    bool inputs_embeds;
    /**
     * The most bytes that the model and the session may hold together, as lxmert_plan counts them. The fastest way to run that keeps
     * to it is chosen. Default: no limit.
     */
    size_t memory_budget;
    /**
     * One of lxmert_residency.
     */
    int32_t residency;
    /**
     * Whether all memory of the session, and the weights if they are in memory, may never be swapped out or evicted. Linux only.
     */
    bool lock_memory;
    /**
     * Whether every page of that memory is touched while the session is made, so that no run waits for one.
     */
    bool prefault;
    /**
     * Whether to measure every operation; the sums go to the log, at level LXMERT_LOG_INFO, when the session is freed.
     */
    bool profile;
    /**
     * Where the session's memory comes from; the struct is read during the call only. Default: the heap.
     */
    const struct lxmert_allocator *allocator;
    /**
     * Or a block of the caller's, for one session at a time, which must stay until lxmert_session_free has freed it: at least
     * lxmert_memory_plan.session bytes that begin at a multiple of LXMERT_MEMORY_ALIGNMENT. Not beside an allocator.
     */
    void *memory;
    /**
     * Bytes of that block.
     */
    size_t memory_size;
    /**
     * Asked between operations of a run, by any of its threads; true gives up the call with LXMERT_CANCELLED. It must not call
     * functions with the session, lxmert_session_cancel apart.
     */
    bool (*abort)(void *user_data);
    /**
     * Given to abort.
     */
    void *abort_user_data;
    /**
     * Told the share of the weights, 0 to 1, that is ready while the session is made: one call at a time, by any thread of the
     * session, with a higher share each time. False gives up the call with LXMERT_CANCELLED, and no other follows it. It must not
     * call functions with the model, which may wait for it.
     */
    bool (*progress)(float fraction, void *user_data);
    /**
     * Given to progress.
     */
    void *progress_user_data;
    /**
     * Where the model is computed: "cpu", or as lxmert_device_name has it, such as "cuda:0". Default: "auto", a GPU if this build drives
     * one that is faster than a CPU and it is there, else the CPU.
     */
    const char *device;
} lxmert_session_options;

/**
 * What a model and one session of it hold together, in bytes, and how the session would run. What sessions share is counted
 * whole: a second session of the model takes only its session and other more.
 */
typedef struct lxmert_memory_plan {
    /**
     * sizeof(lxmert_memory_plan): LXMERT_MEMORY_PLAN_INIT sets it.
     */
    size_t struct_size;
    /**
     * One of lxmert_residency, never LXMERT_RESIDENCY_AUTO.
     */
    int32_t residency;
    /**
     * How the model would be computed, such as "avx2". Valid for as long as the library is loaded.
     */
    const char *lowering;
    /**
     * Where the model would be computed: "cpu", or as lxmert_device_info has it. Valid for as long as the library is loaded.
     */
    const char *device;
    /**
     * Weights and scratch in the memory of that device, if it is another than the CPU.
     */
    size_t device_bytes;
    /**
     * Weights where the file is mapped, as if all of them were in memory at once, or where the caller keeps its bytes.
     */
    size_t weights_mapped;
    /**
     * Weights in memory of the model's own, which all its sessions share. They stay until the model and its last session are
     * freed, and so count for later sessions that would do without.
     */
    size_t weights_private;
    /**
     * The session's block: what allocator is asked for, and what memory must have room for, to the byte.
     */
    size_t session;
    /**
     * The tokenizer, at most, once the first question is asked as text.
     */
    size_t tokenizer;
    /**
     * The answers' texts.
     */
    size_t labels;
    /**
     * The list of tensors, and the threads' stacks as far as they are used.
     */
    size_t other;
    /**
     * The sum, which memory_budget is compared with.
     */
    size_t total;
} lxmert_memory_plan;

/**
 * What a session was made for, and what it takes.
 */
typedef struct lxmert_session_info {
    /**
     * sizeof(lxmert_session_info): LXMERT_SESSION_INFO_INIT sets it.
     */
    size_t struct_size;
    /**
     * Where the weights are: one of lxmert_residency, never LXMERT_RESIDENCY_AUTO.
     */
    int32_t residency;
    /**
     * How the model is computed, such as "avx2". Valid for as long as the library is loaded.
     */
    const char *lowering;
    /**
     * Where the model is computed: "cpu", or as lxmert_device_info has it. Valid for as long as the library is loaded.
     */
    const char *device;
    /**
     * The longest question in tokens, [CLS] and [SEP] included.
     */
    size_t max_tokens;
    /**
     * The most regions of an image.
     */
    size_t max_regions;
    /**
     * The most pairs of image and question in one lxmert_run.
     */
    size_t max_batch;
    /**
     * The threads that compute, the calling one included.
     */
    size_t threads;
    /**
     * Bytes of memory that the session holds, beside the model's weights.
     */
    size_t session_bytes;
    /**
     * Answers that the model tells apart, and so the most that lxmert_ask gives; 0 without an answer head.
     */
    size_t label_count;
} lxmert_session_info;

/**
 * One answer and how it scored.
 */
typedef struct lxmert_answer {
    /**
     * The answer's number: its row in the answer head.
     */
    size_t label;
    /**
     * The answer's text, UTF-8; NULL if the model's file holds no answers. Valid until the session is freed.
     */
    const char *text;
    /**
     * The raw score.
     */
    float logit;
    /**
     * The logit's share among all answers, after softmax: a probability for a model that was trained with cross-entropy, a
     * ranking for others.
     */
    float softmax;
    /**
     * The logistic function of the logit: the expected VQA score for a model that was trained with binary cross-entropy over soft
     * labels, as the VQA and GQA checkpoints were.
     */
    float sigmoid;
} lxmert_answer;

/**
 * A batch of raw tensors, without gaps and with the slowest axis first. B is batch, L tokens, O regions; the other sizes are
 * those of lxmert_model_info.
 */
typedef struct lxmert_inputs {
    /**
     * sizeof(lxmert_inputs): LXMERT_INPUTS_INIT sets it.
     */
    size_t struct_size;
    /**
     * Pairs of a question and an image, B.
     */
    size_t batch;
    /**
     * Tokens of every question, padding included, L.
     */
    size_t tokens;
    /**
     * Regions of every image, padding included, O.
     */
    size_t regions;
    /**
     * Token ids, [B, L]. Exactly one of these and inputs_embeds is given.
     */
    const uint32_t *input_ids;
    /**
     * Embeddings in place of the word embedding's rows, [B, L, hidden_size], for a session with inputs_embeds in its options.
     */
    const float *inputs_embeds;
    /**
     * 1 to keep a token and 0 to drop it, [B, L]. NULL keeps all.
     */
    const float *attention_mask;
    /**
     * Token types, [B, L]. NULL for zeros.
     */
    const uint32_t *token_type_ids;
    /**
     * Features of the regions, [B, O, feature_size].
     */
    const float *visual_feats;
    /**
     * Boxes of the regions, [B, O, box_size]: x1, y1, x2, y2 of the corners, divided by the image's width (x) and height (y).
     */
    const float *visual_pos;
    /**
     * 1 to keep a region and 0 to drop it, [B, O]. NULL keeps all.
     */
    const float *visual_attention_mask;
} lxmert_inputs;

/**
 * An output of a run, in the session's memory.
 */
typedef struct lxmert_tensor {
    /**
     * sizeof(lxmert_tensor): LXMERT_TENSOR_INIT sets it.
     */
    size_t struct_size;
    /**
     * The numbers, without gaps.
     */
    const float *data;
    /**
     * How many axes it has, at most 4.
     */
    size_t rank;
    /**
     * Their sizes, the slowest axis first as in PyTorch; 0 beyond rank.
     */
    size_t shape[4];
} lxmert_tensor;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of a status, such as "LXMERT_OK"; "unknown status" for any other number. Never NULL; valid for as long as the
 * library is loaded.
 *
 * | allocates   | no    |
 * |-------------|-------|
 * | thread-safe | yes   |
 * | blocks      | no    |
 * | fails       | never |
 */
const char *lxmert_status_name(int32_t status);

/**
 * The text of the calling thread's last failed call: one line of UTF-8 that names what is wrong and what to do, cut to 1023
 * bytes; an empty string if none has failed. A call that succeeds leaves it as it is, but for lxmert_session_free, which empties
 * it. Never NULL; valid until it changes so, or with the next failure on the same thread.
 *
 * | allocates   | no                                 |
 * |-------------|------------------------------------|
 * | thread-safe | yes: every thread has its own text |
 * | blocks      | no                                 |
 * | fails       | never                              |
 */
const char *lxmert_last_error(void);

/**
 * The library's version, such as "0.1.0". Never NULL; valid for as long as the library is loaded.
 *
 * | allocates   | no    |
 * |-------------|-------|
 * | thread-safe | yes   |
 * | blocks      | no    |
 * | fails       | never |
 */
const char *lxmert_version(void);

/**
 * The version of the library's interface: a program runs with it if this equals the LXMERT_ABI_VERSION that it was compiled
 * with.
 *
 * | allocates   | no    |
 * |-------------|-------|
 * | thread-safe | yes   |
 * | blocks      | no    |
 * | fails       | never |
 */
uint32_t lxmert_abi_version(void);

/**
 * Version, target and backends of this build, in one line. Never NULL; valid for as long as the library is loaded.
 *
 * | allocates   | no    |
 * |-------------|-------|
 * | thread-safe | yes   |
 * | blocks      | no    |
 * | fails       | never |
 */
const char *lxmert_build_info(void);

/**
 * Counts the devices beside the CPU that this build drives and that are here.
 *
 * | allocates   | while it asks the drivers                     |
 * |-------------|-----------------------------------------------|
 * | thread-safe | yes                                           |
 * | blocks      | while drivers start, in the first call        |
 * | fails       | LXMERT_DEVICE if one does; count is then zero |
 */
enum lxmert_status lxmert_device_count(size_t *count);

/**
 * Tells of the device of that number, below lxmert_device_count. Only as much of info is written as its struct_size says.
 *
 * | allocates   | while it asks the drivers; for a device's first time its texts |
 * |-------------|----------------------------------------------------------------|
 * | thread-safe | yes                                                            |
 * | blocks      | while drivers start, in the first call                         |
 * | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_DEVICE                         |
 */
enum lxmert_status lxmert_device_get_info(size_t index,
                                          struct lxmert_device_info *info);

/**
 * Sets the function that the library's messages go to, up to max_level (one of lxmert_log_level). A NULL callback makes it
 * silent again, as it is at first; max_level then does not matter. When the call returns, the previous callback runs no more
 * and its user_data may be freed.
 *
 * | allocates   | no                                                                                                  |
 * |-------------|-----------------------------------------------------------------------------------------------------|
 * | thread-safe | yes, but not from within the callback                                                               |
 * | blocks      | until messages under way are delivered                                                              |
 * | fails       | LXMERT_INVALID_ARGUMENT for another level; LXMERT_BUSY from within the callback; LXMERT_UNSUPPORTED |
 * |             | in a Rust program that has set a logger of its own                                                  |
 */
enum lxmert_status lxmert_set_log(lxmert_log_callback callback,
                                  void *user_data,
                                  int32_t max_level);

/**
 * Loads a GGUF file made by lxmert-quantize, within the limits that lxmert-run has by default. path is UTF-8. The weights
 * are mapped, not read: they take no memory that the operating system could not have back. Replace the file by renaming another over it; if it is shortened in place, the
 * process ends with SIGBUS, as with any map.
 *
 * On success out is a new handle, to be freed with lxmert_model_free; on failure NULL.
 *
 * | allocates   | the handle, answers and lists; not the weights, nor the tokenizer before the first question          |
 * |-------------|------------------------------------------------------------------------------------------------------|
 * | thread-safe | yes                                                                                                  |
 * | blocks      | while the file's header is read                                                                      |
 * | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_IO, LXMERT_INVALID_MODEL, LXMERT_OUT_OF_MEMORY; then nothing is left |
 * |             | behind                                                                                               |
 */
enum lxmert_status lxmert_model_open(const char *path,
                                     struct lxmert_model **out);

/**
 * Loads a model from the bytes of such a file, size of them.
 *
 * With copy, the bytes are the caller's again when the call returns. Without, the model reads them where they are: they must
 * stay alive and unchanged until the model and all its sessions are freed. Bytes that do not begin at a multiple of
 * LXMERT_MEMORY_ALIGNMENT are copied in either case.
 *
 * On success out is a new handle, to be freed with lxmert_model_free; on failure NULL.
 *
 * | allocates   | as lxmert_model_open, and all bytes if they are copied                                           |
 * |-------------|--------------------------------------------------------------------------------------------------|
 * | thread-safe | yes                                                                                              |
 * | blocks      | while the bytes are copied                                                                       |
 * | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_INVALID_MODEL, LXMERT_OUT_OF_MEMORY; then nothing is left behind |
 */
enum lxmert_status lxmert_model_from_memory(const void *bytes,
                                            size_t size,
                                            bool copy,
                                            struct lxmert_model **out);

/**
 * Loads a model through the caller's own functions. Only the file's header is read now; sessions read the rest when they are
 * made, or in every run where weights are streamed. The struct is copied, and need not outlive the call.
 *
 * On success out is a new handle, to be freed with lxmert_model_free; on failure NULL.
 *
 * | allocates   | as lxmert_model_open                                                            |
 * |-------------|---------------------------------------------------------------------------------|
 * | thread-safe | yes                                                                             |
 * | blocks      | while the loader reads                                                          |
 * | fails       | LXMERT_INVALID_ARGUMENT before anything is read; LXMERT_IO if the loader fails; |
 * |             | LXMERT_INVALID_MODEL, LXMERT_OUT_OF_MEMORY; then nothing is left behind         |
 */
enum lxmert_status lxmert_model_from_loader(const struct lxmert_loader *loader,
                                            struct lxmert_model **out);

/**
 * Compares the header and all weights of a model with the checksums that lxmert-quantize has stored in its file. It finds what
 * disks, copies and downloads have done to the file; whoever changes a file on purpose can change these too. It reads the whole file,
 * by a loader too, a part at a time.
 *
 * | allocates   | 256 KiB, and as much as the header and what it holds takes, meanwhile                      |
 * |-------------|--------------------------------------------------------------------------------------------|
 * | thread-safe | yes                                                                                        |
 * | blocks      | while the file is read                                                                     |
 * | fails       | LXMERT_INVALID_MODEL names the first tensor that is damaged; LXMERT_UNSUPPORTED if the     |
 * |             | file holds no checksums; LXMERT_IO, LXMERT_OUT_OF_MEMORY, LXMERT_INVALID_ARGUMENT          |
 */
enum lxmert_status lxmert_model_verify(const struct lxmert_model *model);

/**
 * Frees a model; NULL is fine. Sessions that were made of it keep what they need, but the strings that the model has given
 * out end with it. Answers that a session gives after it keep their texts until that session is freed.
 *
 * | allocates   | no                                                                         |
 * |-------------|----------------------------------------------------------------------------|
 * | thread-safe | not while another call uses the same handle                                |
 * | blocks      | no                                                                         |
 * | fails       | never; what is no live handle is left alone, and lxmert_last_error says so |
 */
void lxmert_model_free(struct lxmert_model *model);

/**
 * Tells what a model is. Only as much of info is written as its struct_size says.
 *
 * | allocates   | no                      |
 * |-------------|-------------------------|
 * | thread-safe | yes                     |
 * | blocks      | no                      |
 * | fails       | LXMERT_INVALID_ARGUMENT |
 */
enum lxmert_status lxmert_model_get_info(const struct lxmert_model *model, struct lxmert_model_info *info);

/**
 * The model's name as its file tells it, UTF-8; NULL if it tells none. Valid until the model is freed.
 *
 * | allocates   | no                      |
 * |-------------|-------------------------|
 * | thread-safe | yes                     |
 * | blocks      | no                      |
 * | fails       | LXMERT_INVALID_ARGUMENT |
 */
enum lxmert_status lxmert_model_name(const struct lxmert_model *model, const char **text);

/**
 * The text of the answer with that number, from 0 to label_count - 1 of lxmert_model_info; UTF-8, valid until the model is
 * freed.
 *
 * | allocates   | no                                                                                          |
 * |-------------|---------------------------------------------------------------------------------------------|
 * | thread-safe | yes                                                                                         |
 * | blocks      | no                                                                                          |
 * | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_UNSUPPORTED if the file holds no answers; then text is NULL |
 */
enum lxmert_status lxmert_model_label(const struct lxmert_model *model,
                                      size_t index,
                                      const char **text);

/**
 * Turns a question, UTF-8, into token ids as lxmert_ask does, [CLS] and [SEP] included, for lxmert_ask_tokens and lxmert_run.
 *
 * ids has room for capacity of them. count becomes the number that the question has, also if there is not room for all;
 * so a first call with NULL and 0 tells how many there will be.
 *
 * | allocates   | what the tokenizer takes; the tokenizer itself in the first call for a model                       |
 * |-------------|----------------------------------------------------------------------------------------------------|
 * | thread-safe | yes                                                                                                |
 * | blocks      | while the first call for a model makes the tokenizer                                               |
 * | fails       | LXMERT_INVALID_ARGUMENT (a question without words is one), LXMERT_UNSUPPORTED without a tokenizer, |
 * |             | LXMERT_INVALID_MODEL for one of no use; count is then 0. LXMERT_LIMIT if there are more than       |
 * |             | capacity: ids is then unchanged                                                                    |
 */
enum lxmert_status lxmert_model_tokenize(const struct lxmert_model *model,
                                         const char *question,
                                         uint32_t *ids,
                                         size_t capacity,
                                         size_t *count);

/**
 * Tells what a session with these options would take, without making it. options may be NULL for the defaults. Only as much of
 * plan is written as its struct_size says.
 *
 * | allocates   | while it plans                                                                           |
 * |-------------|------------------------------------------------------------------------------------------|
 * | thread-safe | yes                                                                                      |
 * | blocks      | no                                                                                       |
 * | fails       | as lxmert_session_create does for these options, and LXMERT_BUDGET if no way to run fits |
 * |             | memory_budget                                                                            |
 */
enum lxmert_status lxmert_plan(const struct lxmert_model *model,
                               const struct lxmert_session_options *options,
                               struct lxmert_memory_plan *plan);

/**
 * Makes a session and takes all its memory, so that its runs take none. options may be NULL for the defaults: one question at
 * a time, of any length up to 512 tokens, about an image of up to 100 regions or of the model's patch grid. The struct and
 * what it points to, memory and callbacks' data apart, are read during the call only.
 *
 * On success out is a new handle, to be freed with lxmert_session_free; on failure NULL. The model's handle may be freed
 * before the session.
 *
 * | allocates   | all that the session takes, from allocator or in memory where they are given; with the first session |
 * |-------------|------------------------------------------------------------------------------------------------------|
 * |             | of a model, its weights in the order of the kernels                                                  |
 * | thread-safe | yes                                                                                                  |
 * | blocks      | while weights are made ready, also by another thread                                                 |
 * | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_LIMIT, LXMERT_UNSUPPORTED, LXMERT_INVALID_MODEL for a lowering that  |
 * |             | does not read a packed file, LXMERT_OUT_OF_MEMORY, LXMERT_BUDGET, LXMERT_CANCELLED by progress,      |
 * |             | LXMERT_IO, LXMERT_SYSTEM, LXMERT_DEVICE; then nothing is left behind but what later sessions of the model share     |
 */
enum lxmert_status lxmert_session_create(const struct lxmert_model *model,
                                         const struct lxmert_session_options *options,
                                         struct lxmert_session **out);

/**
 * Frees a session; NULL is fine, and does nothing. Its outputs and the texts of its answers end with it.
 *
 * What the options gave the session (memory, allocator, the callbacks and their data) must stay until a call that has freed it. So
 * before freeing a session that another thread may be using, cancel it, and wait for that thread's call to return.
 *
 * | allocates   | only to report a profile                                                                   |
 * |-------------|--------------------------------------------------------------------------------------------|
 * | thread-safe | not while another call uses the same handle                                                |
 * | blocks      | until its threads have ended                                                               |
 * | fails       | a session that a call is using, and what is no live handle, are left alone; then           |
 * |             | lxmert_last_error says so, and the log for the former. Otherwise its text is empty by then |
 */
void lxmert_session_free(struct lxmert_session *session);

/**
 * Copies the text of the session's last failed call, whichever thread made it, into buffer, which has room for size bytes: one
 * line of UTF-8, closed by a NUL and cut between characters where there is no room; empty if none has failed. Calls that
 * LXMERT_BUSY refused do not count, as the session knows nothing of them.
 *
 * | allocates   | no                                              |
 * |-------------|-------------------------------------------------|
 * | thread-safe | yes, also while another thread uses the session |
 * | blocks      | while another thread copies or sets the text    |
 * | fails       | LXMERT_INVALID_ARGUMENT, also for a size of 0   |
 */
enum lxmert_status lxmert_session_last_error(const struct lxmert_session *session,
                                             char *buffer,
                                             size_t size);

/**
 * Gives every call that runs the model from now on at most so many microseconds; 0 for no limit, as at first. A call that
 * reaches its limit returns LXMERT_TIME_LIMIT within one operation; while lxmert_ask makes or uses the tokenizer, or a picture is
 * scaled, that comes first.
 *
 * | allocates   | no                                                         |
 * |-------------|------------------------------------------------------------|
 * | thread-safe | one call on a session at a time; others return LXMERT_BUSY |
 * | blocks      | no                                                         |
 * | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_BUSY                       |
 */
enum lxmert_status lxmert_session_set_time_limit(struct lxmert_session *session,
                                                 uint64_t microseconds);

/**
 * Makes the call that is using the session return LXMERT_CANCELLED within one operation; does nothing if none is. While lxmert_ask
 * makes or uses the tokenizer, or a picture is scaled, that comes first.
 *
 * | allocates   | no                                                                 |
 * |-------------|--------------------------------------------------------------------|
 * | thread-safe | yes: it is made to be called while another thread uses the session |
 * | blocks      | no: it does not wait for that call                                 |
 * | fails       | LXMERT_INVALID_ARGUMENT                                            |
 */
enum lxmert_status lxmert_session_cancel(struct lxmert_session *session);

/**
 * Tells what a session was made for, with the defaults filled in, and what it takes. Only as much of info is written as its
 * struct_size says.
 *
 * | allocates   | no                                              |
 * |-------------|-------------------------------------------------|
 * | thread-safe | yes, also while another thread uses the session |
 * | blocks      | no                                              |
 * | fails       | LXMERT_INVALID_ARGUMENT                         |
 */
enum lxmert_status lxmert_session_get_info(const struct lxmert_session *session,
                                           struct lxmert_session_info *info);

/**
 * Encodes an image from ready features, to be asked any number of questions.
 *
 * features are [regions, feature_size] and boxes [regions, box_size] with the sizes of lxmert_model_info; all numbers are
 * finite. The first four of a box are x1, y1, x2, y2 of its corners, divided by the image's width (x) and height (y). Both
 * are read during the call only. If it refuses its arguments, the image before stays encoded; if it gives up while it
 * computes, none is.
 *
 * | allocates   | no on the project's own kernels; with the lowering ggml, what its operations take                   |
 * |-------------|-----------------------------------------------------------------------------------------------------|
 * | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                          |
 * | blocks      | while it computes; where weights are streamed from a loader, also while another session reads       |
 * | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_LIMIT, LXMERT_CANCELLED, LXMERT_TIME_LIMIT, LXMERT_IO where weights |
 * |             | are streamed, LXMERT_BUSY                                                                           |
 */
enum lxmert_status lxmert_encode_regions(struct lxmert_session *session,
                                         const float *features,
                                         const float *boxes,
                                         size_t regions);

/**
 * Encodes an image from its pixels, for a model with a patch grid: 8-bit red, green and blue, row by row from the top left.
 * stride is the distance of two rows in bytes, 0 for 3 * width. Images of another size than the grid's are scaled to it. rgb
 * is read during the call only. Failures leave what lxmert_encode_regions tells.
 *
 * | allocates   | as lxmert_encode_regions                                                                |
 * |-------------|-----------------------------------------------------------------------------------------|
 * | thread-safe | one call on a session at a time; others return LXMERT_BUSY                              |
 * | blocks      | as lxmert_encode_regions                                                                |
 * | fails       | as lxmert_encode_regions; LXMERT_UNSUPPORTED for a model that only takes ready features |
 */
enum lxmert_status lxmert_encode_pixels(struct lxmert_session *session,
                                        const uint8_t *rgb,
                                        uint32_t width,
                                        uint32_t height,
                                        size_t stride);

/**
 * Asks a question, UTF-8, about the image that was encoded last.
 *
 * answers has room for capacity of them and gets the best, best first; of equal scores the lower number comes first. count
 * becomes how many there are: capacity, or all answers of the model if they are fewer. With a capacity of 0, answers may be
 * NULL, and the scores are read with lxmert_output.
 *
 * | allocates   | as lxmert_ask_tokens, and what the tokenizer takes; the tokenizer itself in the first call for a   |
 * |-------------|----------------------------------------------------------------------------------------------------|
 * |             | model                                                                                              |
 * | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                         |
 * | blocks      | as lxmert_ask_tokens, and while the first call for a model makes the tokenizer                     |
 * | fails       | as lxmert_ask_tokens; LXMERT_UNSUPPORTED also without a tokenizer, LXMERT_INVALID_MODEL for one of |
 * |             | no use                                                                                             |
 */
enum lxmert_status lxmert_ask(struct lxmert_session *session,
                              const char *question,
                              struct lxmert_answer *answers,
                              size_t capacity,
                              size_t *count);

/**
 * Asks a question that is token ids already, id_count of them, [CLS] and [SEP] included. All else is as with lxmert_ask.
 *
 * | allocates   | as lxmert_encode_regions                                                                             |
 * |-------------|------------------------------------------------------------------------------------------------------|
 * | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                           |
 * | blocks      | as lxmert_encode_regions                                                                             |
 * | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_LIMIT for more tokens than the session was made for,                 |
 * |             | LXMERT_UNSUPPORTED where answers are about two images, LXMERT_NO_IMAGE, LXMERT_NOT_REQUESTED if the  |
 * |             | session computes no answers, LXMERT_NOT_FINITE, LXMERT_CANCELLED, LXMERT_TIME_LIMIT, LXMERT_IO where |
 * |             | weights are streamed, LXMERT_BUSY; count is then 0                                                   |
 */
enum lxmert_status lxmert_ask_tokens(struct lxmert_session *session,
                                     const uint32_t *ids,
                                     size_t id_count,
                                     struct lxmert_answer *answers,
                                     size_t capacity,
                                     size_t *count);

/**
 * Runs the whole model on a batch of raw tensors, which are read during the call only; lxmert_output gives the results. After
 * it no image counts as encoded, unless the batch was of one.
 *
 * | allocates   | as lxmert_encode_regions                                                                             |
 * |-------------|------------------------------------------------------------------------------------------------------|
 * | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                           |
 * | blocks      | as lxmert_encode_regions                                                                             |
 * | fails       | LXMERT_INVALID_ARGUMENT names the tensor that the model cannot take; LXMERT_LIMIT, LXMERT_CANCELLED, |
 * |             | LXMERT_TIME_LIMIT, LXMERT_IO where weights are streamed, LXMERT_BUSY                                 |
 */
enum lxmert_status lxmert_run(struct lxmert_session *session,
                              const struct lxmert_inputs *inputs);

/**
 * Finds an output of the last run under its Hugging Face name: language_output, vision_output, pooled_output,
 * prediction_logits, cross_relationship_score, question_answering_score, visual_obj_score, visual_attr_score,
 * visual_feat_score; or one of a list by its number from 0, as in "language_hidden_states.3": language_hidden_states,
 * vision_hidden_states, language_attentions, vision_attentions, cross_encoder_attentions.
 *
 * The numbers are the session's, and valid until the next call that encodes, asks or runs, or frees it.
 *
 * | allocates   | no, but for the error of a name that is no output's                                                 |
 * |-------------|-----------------------------------------------------------------------------------------------------|
 * | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                          |
 * | blocks      | no                                                                                                  |
 * | fails       | LXMERT_INVALID_ARGUMENT for no output's name, LXMERT_NOT_REQUESTED for one that the options did not |
 * |             | name or before the first run, LXMERT_BUSY                                                           |
 */
enum lxmert_status lxmert_output(const struct lxmert_session *session,
                                 const char *name,
                                 struct lxmert_tensor *tensor);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LXMERT_H */
