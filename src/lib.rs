//! Embedded, quantized inference for LXMERT, the vision-and-language model with three encoders.

pub mod gguf;
pub mod text;
pub mod vision;
