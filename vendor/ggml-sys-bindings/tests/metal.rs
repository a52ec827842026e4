//! The kernels for Metal as they are embedded: one text each. No compiler for it is needed.

#[path = "../build/metal_source.rs"]
mod metal_source;

use std::fs;
use std::path::{Path, PathBuf};

use metal_source::merged;

fn write(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn included_files_stand_in_their_places_once() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("metal");
    let (kernels, other) = (folder.join("kernels"), folder.join("other"));
    write(&kernels, "sum.metal", "#include \"a.h\"\n#include \"b.h\"\nkernel sum\n");
    write(&kernels, "a.h", "#pragma once\n\n#include <metal_stdlib>\nthis is a\n");
    write(&kernels, "b.h", "#pragma once\n#include \"a.h\"\n  __embed_ggml-common.h__\nthis is b\n");
    write(&other, "ggml-common.h", "this is common\n#include \"a.h\"\n");
    assert_eq!(
        merged(&kernels.join("sum.metal"), &[kernels.clone(), other]).unwrap(),
        "\n#include <metal_stdlib>\nthis is a\nthis is common\nthis is b\nkernel sum\n"
    );
    let error = merged(&kernels.join("sum.metal"), &[kernels]).unwrap_err();
    assert!(error.contains("b.h includes ggml-common.h, which is nowhere"), "{error}");
}

/// ggml's own: nothing is left to include, and blocks of quantized numbers are there before the kernels that read them.
#[test]
fn ggmls_kernels_are_complete() {
    let source = Path::new(env!("GGML_INCLUDE")).with_file_name("src").join("ggml-metal");
    let folders = [source.join("kernels"), source.clone(), source.join("..")];
    let mut products = 0;
    for entry in fs::read_dir(&folders[0]).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "metal") {
            continue;
        }
        let text = merged(&path, &folders).unwrap();
        for left in ["#include \"", "#pragma once", "__embed"] {
            assert!(!text.contains(left), "{left} in {}", path.display());
        }
        if let Some(kernel) = text.find("kernel_mul_m") {
            products += 1;
            let block = text.find("} block_q8_0;").expect("ggml-common.h is in it");
            assert!(block < kernel, "{}", path.display());
            assert_eq!(text.matches("} block_q8_0;").count(), 1, "{}", path.display());
        }
    }
    assert!(products >= 3, "{products}");
}
