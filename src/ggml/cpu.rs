//! Whether this CPU has the instructions that ggml's CPU backend was compiled with.
//!
//! ggml chooses its instructions when it is compiled, and would end the process by a signal on a CPU without them. Its base, which
//! describes tensors and converts rows of numbers, is compiled for any CPU of the target and needs no check; nor does either run
//! code of the backend before `main`. The backend is entered by [`ThreadPool`](super::ThreadPool) and
//! [`Graph::work_bytes`](super::Graph::work_bytes), which check.

use std::sync::OnceLock;

use crate::Error;

/// The instructions that ggml's CPU backend was compiled with, beyond what every CPU of the architecture has, by Rust's names.
pub fn cpu_features() -> Vec<&'static str> {
    ggml_sys_bindings::CPU_FEATURES.split_whitespace().collect()
}

/// Whether the backend can run here.
///
/// # Errors
/// [`Error::Instructions`] if this CPU lacks some of what it was compiled with.
pub(crate) fn check_cpu() -> Result<(), Error> {
    static MISSING: OnceLock<String> = OnceLock::new();
    let missing = MISSING.get_or_init(|| missing(&cpu_features(), |name| has(name) == Some(true)).join(", "));
    if missing.is_empty() {
        return Ok(());
    }
    let built_for = match ggml_sys_bindings::CPU {
        "native" => "the machine that built it",
        name => name,
    };
    Err(Error::Instructions { built_for, missing: missing.clone() })
}

fn missing(needed: &[&'static str], has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    needed.iter().copied().filter(|name| !has(name)).collect()
}

/// Whether this CPU has these instructions; `None` for a name that is not known.
fn has(name: &str) -> Option<bool> {
    macro_rules! detect {
        ($detected:ident, $($known:tt)*) => {
            match name {
                $($known => Some(std::arch::$detected!($known)),)*
                _ => None,
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    return detect!(
        is_x86_feature_detected,
        "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "movbe" "adx" "avx512f" "avx512bw"
        "avx512cd" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vnni" "avx512bitalg" "avx512vpopcntdq"
        "avx512bf16" "avx512fp16" "avxvnni" "avxvnniint8" "gfni"
    );
    #[cfg(target_arch = "aarch64")]
    return detect!(
        is_aarch64_feature_detected,
        "lse" "crc" "rdm" "fcma" "jsconv" "rcpc" "frintts" "fp16" "fhm" "dotprod" "i8mm" "bf16" "sve" "sve2"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_the_cpu_lacks() {
        let older = |name: &str| ["fp16", "lse"].contains(&name);
        assert_eq!(missing(&["lse", "fp16"], older), [""; 0]);
        assert_eq!(missing(&["lse", "dotprod", "fp16", "i8mm"], older), ["dotprod", "i8mm"]);
    }

    #[test]
    fn every_feature_of_a_build_can_be_asked_for() {
        let of_target = match std::env::consts::ARCH {
            "x86_64" => &ggml_sys_bindings::features::X86[..],
            _ => &ggml_sys_bindings::features::ARM,
        };
        for (_, name) in of_target {
            assert!(has(name).is_some(), "{name}");
        }
        assert_eq!(has("abacus"), None);
    }

    #[test]
    fn one_line_tells_what_is_missing_and_what_to_do() {
        let error = Error::Instructions { built_for: "armv8.6-a", missing: "dotprod, i8mm".to_owned() };
        let text = error.to_string();
        assert!(text.contains("armv8.6-a") && text.contains("dotprod, i8mm"), "{text}");
        assert!(text.contains("LXMERT_CPU=baseline") && !text.contains('\n'), "{text}");
    }
}
