// Turns what a device does when it fails, ggml's abort and the exceptions of drivers' wrappers, into a result.

#include <cstdio>
#include <exception>
#include <mutex>

#include "ggml.h"

namespace {

struct Aborted {};

struct Guard {
    char * text;
    size_t size;
    Guard * outer;
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

extern "C" bool lxmert_ggml_guard(void (*body)(void *), void * data, char * text, size_t size) {
    static std::once_flag once;
    std::call_once(once, [] { others = ggml_set_abort_callback(on_abort); });
    Guard guard = {text, size, innermost};
    innermost = &guard;
    bool done = false;
    try {
        body(data);
        done = true;
    } catch (const Aborted &) {
    } catch (const std::exception & exception) {
        tell(exception.what());
    } catch (...) {
        tell("an exception without a text");
    }
    innermost = guard.outer;
    return done;
}
