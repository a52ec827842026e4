//! The GGUF file format: a reader that checks everything, and a writer.
