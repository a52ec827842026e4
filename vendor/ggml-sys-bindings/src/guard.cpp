// Turns what a device does when it fails, ggml's abort and the exceptions of drivers' wrappers, into a result.

#include <cstdio>
#include <exception>
#include <mutex>
#include <new>

#include "ggml-impl.h"
#include "ggml.h"

namespace {

struct Aborted {};

struct OutOfMemory {};

// The most blocks that ggml's CPU backend has asked for in a call and not freed: those of a pool of threads.
constexpr size_t max_blocks = 4;

struct Guard {
    char * text;
    size_t size;
    Guard * outer;
    void * blocks[max_blocks];
    size_t sizes[max_blocks];
    size_t count;
};

thread_local Guard * innermost = nullptr;

ggml_abort_callback_t others = nullptr;

void tell(const char * text) {
    std::snprintf(innermost->text, innermost->size, "%s", text);
}

void on_abort(const char * text) {
    if (innermost != nullptr) {
        tell(text);
        throw Aborted();
    }
    if (others != nullptr) {
        others(text);
    } else {
        std::fprintf(stderr, "%s\n", text);
    }
}

}  // namespace

// What ggml's CPU backend has in the place of ggml_aligned_malloc, whose result it does not look at.
extern "C" void * lxmert_ggml_aligned_malloc(size_t size) {
    void * block = ggml_aligned_malloc(size);
    if (innermost == nullptr) {
        if (block == nullptr) {
            GGML_ABORT("out of memory");
        }
        return block;
    }
    if (block == nullptr || innermost->count == max_blocks) {
        ggml_aligned_free(block, size);
        throw OutOfMemory();
    }
    innermost->blocks[innermost->count] = block;
    innermost->sizes[innermost->count] = size;
    innermost->count++;
    return block;
}

// What ggml's CPU backend has in the place of ggml_aligned_free: a call may make and free any number of pools.
extern "C" void lxmert_ggml_aligned_free(void * block, size_t size) {
    for (Guard * guard = innermost; guard != nullptr; guard = guard->outer) {
        for (size_t i = 0; i < guard->count; i++) {
            if (guard->blocks[i] == block) {
                guard->count--;
                guard->blocks[i] = guard->blocks[guard->count];
                guard->sizes[i] = guard->sizes[guard->count];
                ggml_aligned_free(block, size);
                return;
            }
        }
    }
    ggml_aligned_free(block, size);
}

// What ggml's CPU backend has in the place of ggml_init: each run makes a context there, only so that the clock is set, and would abort
// for want of its few bytes.
extern "C" ggml_context * lxmert_ggml_begin(ggml_init_params) {
    ggml_time_init();
    return nullptr;
}

extern "C" bool lxmert_ggml_guard(void (*body)(void *), void * data, char * text, size_t size) {
    static std::once_flag once;
    std::call_once(once, [] { others = ggml_set_abort_callback(on_abort); });
    Guard guard = {text, size, innermost, {}, {}, 0};
    innermost = &guard;
    bool done = false;
    try {
        body(data);
        done = true;
    } catch (const Aborted &) {
    } catch (const OutOfMemory &) {
        // Of what was to be made of them nothing has begun to work.
        for (size_t i = 0; i < guard.count; i++) {
            ggml_aligned_free(guard.blocks[i], guard.sizes[i]);
        }
        tell("out of memory");
    } catch (const std::bad_alloc &) {
        tell("out of memory");
    } catch (const std::exception & exception) {
        tell(exception.what());
    } catch (...) {
        tell("an exception without a text");
    }
    innermost = guard.outer;
    return done;
}
