//! The header is what `src/capi` says, and compiles wherever C programs may include it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The files that declare the interface, in the order in which the header tells of it.
const SOURCES: [&str; 12] = [
    "status.rs",
    "errors.rs",
    "library.rs",
    "device.rs",
    "log.rs",
    "loader.rs",
    "model.rs",
    "memory.rs",
    "options.rs",
    "plan.rs",
    "session.rs",
    "run.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn header() -> PathBuf {
    root().join("include/lxmert.h")
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root().join("src/capi").join(source));
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn the_header_is_what_the_code_says() {
    let generated = generated();
    if std::env::var_os("LXMERT_UPDATE").is_some() {
        std::fs::write(header(), &generated).unwrap();
    }
    let committed = std::fs::read_to_string(header()).unwrap();
    assert!(committed == generated, "LXMERT_UPDATE=1 cargo test --test header makes include/lxmert.h again");
}

/// Compiles a program that includes the header, with every warning an error.
fn compile(compiler: &str, arguments: &[&str], name: &str, program: &str) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join(name);
    std::fs::write(&file, program).unwrap();
    let output = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wshadow", "-Wconversion", "-c", "-o"])
        .arg(directory.path().join("program.o"))
        .arg("-I")
        .arg(root().join("include"))
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
}

fn compile_as_both(program: &str) {
    compile("cc", &["-std=c11", "-Wstrict-prototypes"], "program.c", program);
    compile("c++", &["-std=c++17"], "program.cpp", program);
}

/// Every initial value, included twice as large programs do.
const INITIAL_VALUES: &str = r#"
#include <lxmert.h>
#include <lxmert.h>

int main(void)
{
    lxmert_device_info device = LXMERT_DEVICE_INFO_INIT;
    lxmert_loader loader = LXMERT_LOADER_INIT;
    lxmert_model_info model_info = LXMERT_MODEL_INFO_INIT;
    lxmert_session_options options = LXMERT_SESSION_OPTIONS_INIT;
    lxmert_memory_plan plan = LXMERT_MEMORY_PLAN_INIT;
    lxmert_session_info session_info = LXMERT_SESSION_INFO_INIT;
    lxmert_inputs inputs = LXMERT_INPUTS_INIT;
    lxmert_tensor tensor = LXMERT_TENSOR_INIT;
    options.residency = LXMERT_RESIDENCY_STREAMED;
    options.lock_memory = true;
    return loader.struct_size == sizeof loader && model_info.struct_size == sizeof model_info
        && options.struct_size == sizeof options && options.allocator == NULL && plan.struct_size == sizeof plan
        && session_info.struct_size == sizeof session_info && inputs.struct_size == sizeof inputs
        && tensor.struct_size == sizeof tensor && device.struct_size == sizeof device && lxmert_abi_version() == LXMERT_ABI_VERSION
        ? LXMERT_OK : LXMERT_INTERNAL;
}
"#;

#[test]
fn compiles_as_c11_and_as_cpp17() {
    compile_as_both(INITIAL_VALUES);
}

/// As C++ programs include the headers of C libraries that do not say so themselves.
#[test]
fn compiles_within_extern_c() {
    let (includes, program) = INITIAL_VALUES.split_once("\n\n").unwrap();
    compile("c++", &["-std=c++17"], "program.cpp", &format!("extern \"C\" {{{includes}\n}}\n{program}"));
}

#[test]
fn its_example_compiles() {
    let header = std::fs::read_to_string(header()).unwrap();
    let lines = header.lines().skip_while(|line| !line.starts_with(" *     #include"));
    let code = lines.take_while(|line| line.starts_with(" *     ") || *line == " *").map(|line| &line[2..]);
    let program = code.collect::<Vec<_>>().join("\n");
    assert!(program.contains("lxmert_ask("), "{program}");
    compile_as_both(&format!("{program}\n"));
}

#[test]
fn every_function_says_the_same_four_things() {
    let header = std::fs::read_to_string(header()).unwrap();
    let comments: Vec<&str> = header.split("/**").skip(1).collect();
    let mut functions = 0;
    for comment in comments {
        let (text, declaration) = comment.split_once("*/").unwrap();
        let declaration = declaration.trim_start().split(';').next().unwrap();
        let is_function =
            declaration.contains('(') && !declaration.contains("typedef") && !declaration.contains('{');
        if is_function && !declaration.contains("(*") {
            functions += 1;
            for row in ["| allocates ", "| thread-safe ", "| blocks ", "| fails "] {
                assert_eq!(text.matches(row).count(), 1, "{declaration}: {row}");
            }
        }
    }
    assert_eq!(functions, symbols().len());
}

fn symbols() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("include/lxmert.symbols")).unwrap();
    text.lines().map(str::to_owned).collect()
}
