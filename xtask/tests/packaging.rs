//! Installs the C library as a package would be made, and uses it as others would: through pkg-config, through CMake, from C, C++ and
//! Python, with every warning an error. All of it must answer as the Rust crate does.

#[path = "packaging/debian.rs"]
mod debian;
#[path = "../../tests/common/faults.rs"]
mod faults;
#[path = "packaging/no_memory.rs"]
mod no_memory;
#[path = "packaging/real_time.rs"]
mod real_time;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use lxmert::vision::{FrontEnd, load_image};
use lxmert::{Model, Session, SessionOptions};

const QUESTIONS: [&str; 3] =
    ["what shape is in the image?", "what color is the shape?", "is there a circle?"];

const WARNINGS: &str = "-Wall -Wextra -Werror -pedantic";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// A fresh folder for one test's files.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packaging").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The prefix of an installation that lies elsewhere than it was made for, so that whatever names that place is found out.
fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let destdir = folder("installed");
        let mut install = Command::new(env!("CARGO_BIN_EXE_xtask"));
        install
            .args(["install", "--prefix", "/opt/lxmert", "--libdir", "lib/here", "--destdir"])
            .arg(&destdir);
        succeed(&mut install);
        destdir.join("opt/lxmert")
    })
}

fn libraries() -> PathBuf {
    prefix().join("lib/here")
}

fn model() -> PathBuf {
    root("models/easy-vqa/easy-vqa-q8_0.gguf")
}

/// The bundled picture in the format that the examples read.
fn picture() -> &'static Path {
    static PICTURE: OnceLock<PathBuf> = OnceLock::new();
    PICTURE.get_or_init(|| {
        let image = load_image(&root("models/easy-vqa/example_1.png")).unwrap();
        let mut bytes = format!("P6\n# a comment\n{} {}\n255\n", image.width(), image.height()).into_bytes();
        bytes.extend_from_slice(image.as_raw());
        let path = folder("picture").join("example_1.ppm");
        fs::write(&path, bytes).unwrap();
        path
    })
}

/// What the examples must print below their first line, from the Rust crate.
fn expected_answers() -> String {
    let model = Model::open(model()).unwrap();
    let mut options = SessionOptions::new(&model);
    options.threads = 1;
    let mut session = Session::new(&model, options).unwrap();
    let FrontEnd::PatchGrid(grid) = model.front_end() else { panic!("the model cuts patches") };
    let image = load_image(&root("models/easy-vqa/example_1.png")).unwrap();
    session.encode_image(&grid.regions(&image).unwrap()).unwrap();
    let mut text = String::new();
    for question in QUESTIONS {
        text += &format!("{question}\n");
        for answer in session.ask(question).unwrap().top(3) {
            let share = 100.0 * f64::from(answer.softmax);
            text += &format!("  {}  {share:.2} %  (score {:.4})\n", answer.text.unwrap(), answer.logit);
        }
    }
    text
}

fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
    stdout
}

/// Whether a program is there; says what it leaves out otherwise.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: no {program} on this machine");
    }
    found
}

/// A command that finds the installation at build time and when its programs run.
fn with_installation(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PKG_CONFIG_PATH", libraries().join("pkgconfig")).env("LD_LIBRARY_PATH", libraries());
    command
}

/// Runs an example on the bundled model and picture; returns what it prints below the line with the plan.
fn answers_of(command: &mut Command) -> String {
    let text = succeed(command.arg(model()).arg(picture()).args(QUESTIONS));
    let (plan, answers) = text.split_once('\n').unwrap();
    assert!(plan.starts_with("lowering ") && plan.contains(" bytes"), "{plan}");
    answers.to_owned()
}

/// Whether a program asks for the shared library.
fn is_linked_to_shared(program: &Path) -> bool {
    succeed(Command::new("readelf").arg("--dynamic").arg(program)).contains("liblxmert.so.0")
}

#[derive(Clone, Copy)]
enum Language {
    C,
    Cpp,
}

impl Language {
    const BOTH: [Language; 2] = [Language::C, Language::Cpp];

    fn folder(self) -> &'static str {
        match self {
            Language::C => "c",
            Language::Cpp => "cpp",
        }
    }

    fn flags(self) -> &'static str {
        match self {
            Language::C => "CFLAGS",
            Language::Cpp => "CXXFLAGS",
        }
    }
}

/// Builds one of the test programs against the installation.
fn build(compiler: &str, name: &str, sources: &[PathBuf], includes: &[PathBuf], is_static: bool) -> PathBuf {
    let program = folder(name).join(name);
    let of_package = |options: &[&str]| {
        let text = succeed(with_installation("pkg-config").args(options).arg("lxmert"));
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut command = Command::new(compiler);
    command.args(WARNINGS.split(' ')).args(of_package(&["--cflags"]));
    command.args(includes.iter().map(|folder| {
        let mut option = OsString::from("-I");
        option.push(folder);
        option
    }));
    command.args(sources).arg("-o").arg(&program);
    if is_static {
        let libraries = of_package(&["--static", "--libs"]);
        command.args(libraries.iter().map(|library| library.replace("-llxmert", "-l:liblxmert.a")));
    } else {
        command.args(of_package(&["--libs"]));
    }
    succeed(&mut command);
    program
}

/// A C program of the tests, which reads pictures as the example does.
fn build_c(name: &str, is_static: bool) -> PathBuf {
    let sources = [root(&format!("xtask/tests/programs/{name}.c")), root("examples/c/ppm.c")];
    build("cc", name, &sources, &[root("examples/c")], is_static)
}

/// Runs a program under valgrind, which fails for memory that was lost or used wrongly.
fn under_valgrind(program: &Path) -> Command {
    let mut command = with_installation("valgrind");
    command.args(["--quiet", "--leak-check=full", "--error-exitcode=1"]).arg(program);
    command
}

#[test]
fn both_libraries_show_the_listed_functions_and_nothing_else() {
    let listed = fs::read_to_string(root("include/lxmert.symbols")).unwrap();
    let listed: BTreeSet<&str> = listed.lines().collect();
    assert!(listed.contains("lxmert_ask"));
    for (file, option) in [("liblxmert.so", "--dynamic"), ("liblxmert.a", "--extern-only")] {
        let names = succeed(Command::new("nm").args(["--defined-only", option]).arg(libraries().join(file)));
        let found: BTreeSet<&str> = names.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        assert_eq!(found, listed, "{file}");
    }
}

#[test]
fn the_documentation_lists_every_function() {
    let page = fs::read_to_string(root("docs/embedding.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `lxmert_")).collect();
    for function in fs::read_to_string(root("include/lxmert.symbols")).unwrap().lines() {
        let name = format!("`{function}`");
        // Others' rows may refer to it in their last column.
        let of_function = |row: &&&str| row.split('|').nth(1).unwrap().contains(&name);
        assert_eq!(rows.iter().filter(of_function).count(), 1, "{function}");
    }
}

#[test]
fn the_programs_of_the_documentation_compile() {
    let page = fs::read_to_string(root("docs/embedding.md")).unwrap();
    for (language, compiler) in [("c", ["cc", "-std=c11"]), ("cpp", ["c++", "-std=c++17"])] {
        let (_, program) = page.split_once(&format!("```{language}\n")).unwrap();
        let file = folder(&format!("page-{language}")).join(format!("answer.{language}"));
        fs::write(&file, program.split_once("```").unwrap().0).unwrap();
        let mut command = Command::new(compiler[0]);
        command.args(WARNINGS.split(' ')).args([compiler[1], "-fsyntax-only", "-I"]);
        succeed(command.arg(prefix().join("include")).arg(file));
    }
}

#[test]
fn the_shared_library_has_a_name_with_its_version() {
    let library = libraries().join("liblxmert.so.0.1.0");
    let dynamic = succeed(Command::new("readelf").arg("--dynamic").arg(library));
    assert!(dynamic.contains("soname: [liblxmert.so.0]"), "{dynamic}");
    assert_eq!(fs::read_link(libraries().join("liblxmert.so")).unwrap(), Path::new("liblxmert.so.0"));
    assert_eq!(fs::read_link(libraries().join("liblxmert.so.0")).unwrap(), Path::new("liblxmert.so.0.1.0"));
}

#[test]
fn licences_come_with_the_library() {
    let folder = prefix().join("share/doc/lxmert");
    assert!(folder.join("LICENSE").is_file());
    let others = fs::read_to_string(folder.join("LICENSES-third-party.txt")).unwrap();
    for package in ["ggml", "tokenizers 0", "memmap2 0"] {
        assert!(others.contains(package), "{package}");
    }
    // Programs of the crate and its tests use these; the library does not.
    for package in ["clap 4", "criterion 0"] {
        assert!(!others.contains(package), "{package}");
    }
}

#[test]
fn examples_build_with_pkg_config() {
    if !has("pkg-config") || !has("make") {
        return;
    }
    for language in Language::BOTH {
        for is_static in [false, true] {
            let name = language.folder();
            let build = folder(&format!("make-{name}-{is_static}"));
            for file in fs::read_dir(root("examples").join(name)).unwrap() {
                let file = file.unwrap().path();
                fs::copy(&file, build.join(file.file_name().unwrap())).unwrap();
            }
            let mut make = with_installation("make");
            make.arg("-C").arg(&build).env(language.flags(), "-Werror");
            if is_static {
                make.arg("STATIC=1");
            }
            succeed(&mut make);
            let program = build.join("ask");
            assert_eq!(is_linked_to_shared(&program), !is_static, "{name}");
            assert_eq!(answers_of(&mut with_installation(program)), expected_answers(), "{name}");
        }
    }
}

#[test]
fn examples_build_with_cmake() {
    if !has("cmake") {
        return;
    }
    for language in Language::BOTH {
        for is_static in [false, true] {
            let name = language.folder();
            let build = folder(&format!("cmake-{name}-{is_static}"));
            let mut configure = Command::new("cmake");
            configure.arg("-S").arg(root("examples").join(name)).arg("-B").arg(&build);
            configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix().display()));
            // Debian keeps libraries below a folder of the target's name; CMake must be told of any other.
            configure.arg(format!("-Dlxmert_DIR={}", libraries().join("cmake/lxmert").display()));
            configure.arg(format!("-DLXMERT_STATIC={}", if is_static { "ON" } else { "OFF" }));
            succeed(configure.env(language.flags(), "-Werror"));
            succeed(Command::new("cmake").arg("--build").arg(&build));
            let program = build.join("ask");
            assert_eq!(is_linked_to_shared(&program), !is_static, "{name}");
            // CMake writes the library's place into the program.
            assert_eq!(answers_of(&mut Command::new(program)), expected_answers(), "{name}");
        }
    }
}

#[test]
fn cmake_refuses_versions_that_do_not_fit() {
    if !has("cmake") {
        return;
    }
    let project = folder("cmake-version");
    for (wanted, fits) in
        [("0.1", true), ("0.1.0 EXACT", true), ("0.0", true), ("0.2", false), ("1.0", false)]
    {
        let text = format!(
            "cmake_minimum_required(VERSION 3.16)\nproject(version LANGUAGES C)\nfind_package(lxmert {wanted} REQUIRED)\n"
        );
        fs::write(project.join("CMakeLists.txt"), text).unwrap();
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(&project).arg("-B").arg(folder("cmake-version-build"));
        configure.arg(format!("-Dlxmert_DIR={}", libraries().join("cmake/lxmert").display()));
        assert_eq!(configure.output().unwrap().status.success(), fits, "{wanted}");
    }
}

#[test]
fn a_program_with_another_ggml_links_the_static_library() {
    if !has("pkg-config") {
        return;
    }
    let program = build_c("own_ggml", true);
    assert_eq!(succeed(Command::new(program).arg(model()).arg(picture())), "circle\n");
}

#[test]
fn everything_that_is_taken_is_given_back() {
    if !has("pkg-config") {
        return;
    }
    let program = build_c("ownership", false);
    let expected = "circle\nteal\nyes\n";
    assert_eq!(succeed(with_installation(&program).arg(model()).arg(picture())), expected);
    if has("valgrind") {
        assert_eq!(succeed(under_valgrind(&program).arg(model()).arg(picture())), expected);
    }
}

#[test]
fn the_c_example_loses_no_memory() {
    if !has("pkg-config") || !has("valgrind") {
        return;
    }
    let sources = [root("examples/c/ask.c"), root("examples/c/ppm.c")];
    let program = build("cc", "ask-valgrind", &sources, &[], false);
    let text = succeed(under_valgrind(&program).arg(model()).arg(picture()).args(QUESTIONS));
    // Valgrind's CPU has fewer instructions, and with them other last digits.
    assert!(text.contains("  circle ") && text.contains("  teal "), "{text}");
    // Failures on the way give back what there is by then.
    for arguments in [[Path::new("absent.gguf"), picture()], [&model(), Path::new("absent.ppm")]] {
        let status =
            under_valgrind(&program).args(arguments).arg("what?").stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8_lossy(&status.stderr);
        assert!(text.contains("absent") && !text.contains("definitely lost"), "{text}");
    }
}

#[test]
fn the_c_example_refuses_damaged_pictures() {
    if !has("pkg-config") {
        return;
    }
    let sources = [root("examples/c/ask.c"), root("examples/c/ppm.c")];
    let program = build("cc", "ask-pictures", &sources, &[], false);
    let path = folder("pictures").join("damaged.ppm");
    let cases: [(&[u8], &str); 7] = [
        (b"P5\n1 1\n255\nabc", "not a binary PPM"),
        (b"P6\n0 1\n255\nabc", "no width"),
        (b"P6\n1 99999999999999999999\n255\nabc", "no height"),
        (b"P6\n1 1\n65535\nabcdef", "8 bits"),
        (b"P6\n1 1\n255\nab", "ends before"),
        (b"P6\n# no end", "no width"),
        (b"", "not a binary PPM"),
    ];
    for (bytes, complaint) in cases {
        fs::write(&path, bytes).unwrap();
        let output = with_installation(&program).arg(model()).arg(&path).arg("what?").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(complaint), "{complaint}: {text}");
    }
}

/// Python with numpy, the installed library and the module; nothing where there is no numpy.
fn python() -> Option<Command> {
    let python = std::env::var_os("LXMERT_PYTHON").unwrap_or_else(|| "python3".into());
    let has_numpy = Command::new(&python).args(["-c", "import numpy"]).output();
    if !has_numpy.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no Python with numpy on this machine");
        return None;
    }
    let mut command = with_installation(python);
    // Nothing is to be written beside the sources.
    command.env("LXMERT_LIBRARY", libraries().join("liblxmert.so")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONPATH", root("examples/python"));
    Some(command)
}

#[test]
fn the_python_example_answers() {
    if let Some(mut command) = python() {
        assert_eq!(answers_of(command.arg(root("examples/python/ask.py"))), expected_answers());
    }
}

#[test]
fn the_python_module_has_the_structs_of_the_header_and_every_call_works() {
    let Some(mut command) = python() else { return };
    let layout = folder("layout").join("layout");
    let mut compile = Command::new("cc");
    compile.args(WARNINGS.split(' ')).arg("-I").arg(prefix().join("include"));
    succeed(compile.arg(root("xtask/tests/programs/layout.c")).arg("-o").arg(&layout));
    let expected = format!("{}lxmert {}\n", succeed(&mut Command::new(layout)), env!("CARGO_PKG_VERSION"));
    let module = command.arg(root("xtask/tests/programs/module.py")).arg(model()).arg(picture());
    assert_eq!(succeed(module), expected);
}

#[test]
fn the_ros_node_answers_about_the_latest_image() {
    if !has("pkg-config") {
        return;
    }
    // As an object of C, as in the example.
    let ppm = folder("node-ppm").join("ppm.o");
    succeed(Command::new("cc").arg("-c").arg(root("examples/c/ppm.c")).arg("-o").arg(&ppm));
    let sources = [root("examples/ros2/src/ask_node.cpp"), root("xtask/tests/programs/node.cpp"), ppm];
    let program = build("c++", "node", &sources, &[root("examples/ros2/stubs"), root("examples/c")], false);
    let text = succeed(with_installation(program).arg(model()).arg(picture()).arg(QUESTIONS[1]));
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let expected = [
        "no image has come yet",
        "rgb8: teal",
        "bgr8: teal",
        "13 answers, 13 scores",
        ": the image's encoding is mono8, expected rgb8 or bgr8",
        ": the image's data does not have the size that its header tells",
        "cancelled",
    ];
    assert_eq!(lines, expected);
}
