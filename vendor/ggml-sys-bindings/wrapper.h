// What the bindings cover. gguf.h is left out on purpose: model files are parsed in safe Rust.
#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
