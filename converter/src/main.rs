//! `lxmert-quantize`: a checkpoint becomes one quantized GGUF file.

fn main() {}
