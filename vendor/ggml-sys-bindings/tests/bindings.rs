//! Regenerates the bindings and compares them with the checked-in file.
//!
//! `LXMERT_UPDATE_BINDINGS=1` writes the file instead. Without libclang the test does nothing.
//! libclang wants the C headers of a compiler: one that comes alone is shown their folder by
//! `BINDGEN_EXTRA_CLANG_ARGS="-isystem FOLDER"`.

use std::collections::BTreeSet;
use std::path::Path;

use quote::ToTokens;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn bindings_belong_to_the_headers() {
    if let Err(panic) = std::panic::catch_unwind(bindgen::clang_version) {
        let reason = panic.downcast_ref::<String>().map_or("no libclang", String::as_str);
        println!("skipped: {reason}");
        return;
    }
    let file = Path::new(CRATE).join("src/bindings.rs");
    let generated = generate();
    if std::env::var_os("LXMERT_UPDATE_BINDINGS").is_some_and(|value| value == "1") {
        std::fs::write(&file, generated).expect("src/bindings.rs can be written");
        return;
    }

    let checked_in = std::fs::read_to_string(&file).expect("src/bindings.rs can be read");
    let (expected, found) = (items(&generated), items(&checked_in));
    let missing: Vec<_> = expected.difference(&found).collect();
    let surplus: Vec<_> = found.difference(&expected).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "src/bindings.rs is not what the headers say; LXMERT_UPDATE_BINDINGS=1 writes it anew\n\
         missing: {missing:#?}\nsurplus: {surplus:#?}"
    );
}

fn generate() -> String {
    bindgen::Builder::default()
        .header(format!("{CRATE}/wrapper.h"))
        .clang_arg(concat!("-I", env!("GGML_INCLUDE")))
        .allowlist_item("(ggml|GGML)_.*")
        // Nothing of the C library, whose types differ between systems: the one function that
        // needs FILE goes with it.
        .allowlist_recursively(false)
        .blocklist_function("ggml_fopen")
        // Declared, but defined nowhere in 0.26.0.
        .blocklist_function("ggml_threadpool_get_n_threads")
        // C may return a number that has no name, which a Rust enum must never hold.
        .newtype_enum(".*")
        // There is a function of this name as well, and a newtype's constructor is one too.
        .constified_enum_module("ggml_backend_dev_type")
        // What `guarded` runs may be left by an exception.
        .override_abi(
            bindgen::Abi::CUnwind,
            "ggml_backend_.*|ggml_abort|ggml_graph_plan|ggml_init|ggml_threadpool_new",
        )
        .rust_target(bindgen::RustTarget::stable(89, 0).expect("bindgen knows Rust 1.89"))
        .rust_edition(bindgen::RustEdition::Edition2024)
        .generate_comments(false)
        .generate_cstr(true)
        .formatter(bindgen::Formatter::Prettyplease)
        .generate()
        .expect("bindgen reads ggml's headers")
        .to_string()
}

/// The items without their order and layout on the page: this is what stays the same from one
/// version of libclang to the next. Every name, type, value, size and offset is still compared.
fn items(source: &str) -> BTreeSet<String> {
    let file = syn::parse_file(source).expect("the bindings are Rust");
    file.items.iter().map(|item| item.to_token_stream().to_string()).collect()
}
