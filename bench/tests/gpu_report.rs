//! What `benches/gpu.sh` writes down of a GPU, of reports that are made up. Without Python the tests do nothing.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn script(arguments: &[&str], input: &str) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/gpu_report.py");
    let mut command = Command::new("python3");
    command.arg(script).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: no python3");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[test]
fn calls_that_start_work_are_counted() {
    let table = "some words before it\n\n\
                 Time (%),Total Time (ns),Num Calls,Avg (ns),Name\n\
                 50.1,100,671,1,cudaLaunchKernel\n\
                 20.0,50,2,1,cudaGraphLaunch_v10000\n\
                 1.0,1,\"1,000\",1,cuLaunchKernelEx\n\
                 1.0,1,40,1,cudaMemcpyAsync\n";
    let Some(output) = script(&["--count-launches"], table) else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1673");
    let Some(output) = script(&["--count-launches"], "nothing\n") else { return };
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).starts_with("error: no table")
    );
}

/// One answer of 2 ms from a file of 100 MiB that took so much of the device's memory.
fn report(device: &str, taken_mib: Option<u64>) -> String {
    let taken = taken_mib.map_or("null".to_owned(), |mib| (mib << 20).to_string());
    format!(
        r#"{{"build": "0.1.0", "device": "{device}", "device_name": null, "batch": 1, "runs": 7, "latency": {{"p50_ms": 2.0}},
            "next_question": {{"p50_ms": 1.5}}, "device_bytes": 104857600, "device_taken_bytes": {taken},
            "model": {{"type": "q8_0", "file_bytes": 104857600}}}}"#
    )
    .replace('\n', " ")
}

#[test]
fn goals_are_met_or_missed_or_not_measured() {
    let directory = TempDir::new().unwrap();
    let document = directory.path().join("GPU.md");
    std::fs::write(&document, "# On a GPU\n\n## Measured\n\nNothing yet.\n").unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let arguments =
        [directory.path().to_str().unwrap(), document.to_str().unwrap(), "golden", "launches of f16"];
    let peer = |name: &str, rest: &str| format!("{{\"peer\": \"{name}\", \"batch\": 1, {rest}}}\n");

    write("q8_0.jsonl", &report("cuda:0", Some(200)));
    write("launches.txt", "q8_0 1000 3000 100\n");
    let graph = peer("PyTorch fp16, CUDA graph", "\"problem\": \"no memory\"");
    write("peers.jsonl", &(peer("PyTorch fp16", "\"latency\": {\"p50_ms\": 8.0}") + &graph));
    if script(&arguments, "").is_none() {
        return;
    }
    let text = std::fs::read_to_string(&document).unwrap();
    for line in [
        "### cuda:0",
        "**Failed: golden; launches of f16.**",
        "| lxmert q8_0 | 1 | 2.000 | 1.500 | 200 | 100 |",
        "| PyTorch fp16, CUDA graph | 1 | left out: no memory |  |  |  |",
        "| q8_0: a first question, beside PyTorch fp16 | 0.5 | 0.25 | met |",
        "| q8_0: a first question, beside PyTorch fp16, CUDA graph | 1 |  | not measured |",
        "| q8_0: launches of an answer | 200 | 20 | met |",
        "| q8_0: memory of the device beyond the file, MiB | 64 | 100 | **missed** |",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("Nothing yet"));

    // Another device's section stays, the same one's is replaced.
    write("q8_0.jsonl", &report("cuda:1", None));
    script(&arguments[..2], "").unwrap();
    script(&arguments[..2], "").unwrap();
    let text = std::fs::read_to_string(&document).unwrap();
    let sections: Vec<_> = text.lines().filter(|line| line.starts_with("### ")).collect();
    assert_eq!(sections, ["### cuda:0", "### cuda:1"]);
    assert!(text.contains("| q8_0: memory of the device beyond the file, MiB | 64 |  | not measured |"));
    assert!(text.starts_with("# On a GPU\n"));
}
