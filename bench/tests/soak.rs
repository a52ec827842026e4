//! Sessions under load, for as long as a test may take.

#[path = "../../tests/common/program.rs"]
mod program;

use program::program;

#[test]
fn eight_sessions_answer_as_one_does() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/easy-vqa/easy-vqa-q8_0.gguf");
    let output = program(env!("CARGO_BIN_EXE_lxmert-soak"))
        .args(["--model", model, "--seconds", "4"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split(|letter: char| !letter.is_ascii_digit()).filter(|number| !number.is_empty());
    let (answers, cancelled) = (numbers.nth(2).unwrap(), numbers.next().unwrap());
    assert!(text.starts_with("8 sessions, 4 s: "), "{text}");
    assert!(answers.parse::<u64>().unwrap() > 0 && cancelled.parse::<u64>().unwrap() > 0, "{text}");
}

#[test]
fn a_model_that_is_not_there_is_one_line() {
    let output = program(env!("CARGO_BIN_EXE_lxmert-soak")).args(["--model", "none.gguf"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1);
}
