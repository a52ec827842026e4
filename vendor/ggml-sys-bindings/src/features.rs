//! Instructions that not every CPU has. The build script asks the compiler which of them it uses; Rust asks the CPU by the same names.
//!
//! Listed is what compilers use by themselves or ggml's CPU code asks for. What neither does (random numbers, state of threads) is
//! left out: it would refuse CPUs that lack nothing. So is AMX, whose code ggml enters only for buffers of a kind of its own. Not
//! seen are the copies of memory of Armv8.8, `__ARM_FEATURE_MOPS`: Rust has no stable name to ask the CPU for them yet.

/// The macro by which C++ compilers tell that they use it, and Rust's name for it.
pub type Feature = (&'static str, &'static str);

/// Of 64-bit x86.
pub const X86: [Feature; 30] = [
    ("__SSE3__", "sse3"),
    ("__SSSE3__", "ssse3"),
    ("__SSE4_1__", "sse4.1"),
    ("__SSE4_2__", "sse4.2"),
    ("__POPCNT__", "popcnt"),
    ("__AVX__", "avx"),
    ("__AVX2__", "avx2"),
    ("__FMA__", "fma"),
    ("__F16C__", "f16c"),
    ("__BMI__", "bmi1"),
    ("__BMI2__", "bmi2"),
    ("__LZCNT__", "lzcnt"),
    ("__MOVBE__", "movbe"),
    ("__ADX__", "adx"),
    ("__AVX512F__", "avx512f"),
    ("__AVX512BW__", "avx512bw"),
    ("__AVX512CD__", "avx512cd"),
    ("__AVX512DQ__", "avx512dq"),
    ("__AVX512VL__", "avx512vl"),
    ("__AVX512IFMA__", "avx512ifma"),
    ("__AVX512VBMI__", "avx512vbmi"),
    ("__AVX512VBMI2__", "avx512vbmi2"),
    ("__AVX512VNNI__", "avx512vnni"),
    ("__AVX512BITALG__", "avx512bitalg"),
    ("__AVX512VPOPCNTDQ__", "avx512vpopcntdq"),
    ("__AVX512BF16__", "avx512bf16"),
    ("__AVX512FP16__", "avx512fp16"),
    ("__AVXVNNI__", "avxvnni"),
    ("__AVXVNNIINT8__", "avxvnniint8"),
    ("__GFNI__", "gfni"),
];

/// Of 64-bit ARM.
pub const ARM: [Feature; 14] = [
    ("__ARM_FEATURE_ATOMICS", "lse"),
    ("__ARM_FEATURE_CRC32", "crc"),
    ("__ARM_FEATURE_QRDMX", "rdm"),
    ("__ARM_FEATURE_COMPLEX", "fcma"),
    ("__ARM_FEATURE_JCVT", "jsconv"),
    ("__ARM_FEATURE_RCPC", "rcpc"),
    ("__ARM_FEATURE_FRINT", "frintts"),
    ("__ARM_FEATURE_FP16_VECTOR_ARITHMETIC", "fp16"),
    ("__ARM_FEATURE_FP16_FML", "fhm"),
    ("__ARM_FEATURE_DOTPROD", "dotprod"),
    ("__ARM_FEATURE_MATMUL_INT8", "i8mm"),
    ("__ARM_FEATURE_BF16_VECTOR_ARITHMETIC", "bf16"),
    ("__ARM_FEATURE_SVE", "sve"),
    ("__ARM_FEATURE_SVE2", "sve2"),
];
