//! How many instructions an answer takes, counted by a plugin of qemu: with this project's kernels, and with ggml compiled for the same
//! CPU. A count is no time, but unlike one it can be had without a board, and is the same each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::program;
use super::toolchain::{self, Cpu, RustFrom, Toolchain};
use crate::Result;
use crate::tools::{cargo, output_of, succeed};

#[derive(clap::Args)]
pub struct Arguments {
    /// A CPU to count on; may be repeated [default: all].
    #[arg(long = "cpu", value_name = "NAME")]
    cpus: Vec<Cpu>,
    /// A type of weights; may be repeated [default: q8_0, q4_0, f32, and bf16 where the CPU multiplies it].
    #[arg(long = "type", value_name = "NAME")]
    types: Vec<String>,
    /// Tell what share of a first answer each function takes.
    #[arg(long)]
    functions: bool,
    /// Where Rust's standard library for the target is from [default: rustup, or Debian where that has none].
    #[arg(long, value_name = "NAME")]
    toolchain: Option<RustFrom>,
}

/// The only qemu that loads plugins is the one that is linked dynamically.
const QEMU: &str = "qemu-aarch64";

const BENCH: [&str; 4] = ["--package", "lxmert-bench", "--bin", "lxmert-bench"];

/// A product by ggml alone.
const PRODUCT: [&str; 4] = ["--package", "ggml-sys-bindings", "--example", "product"];

/// How an emulated CPU is used by both.
struct Setting {
    cpu: Cpu,
    lowering: &'static str,
    /// What ggml is compiled for, as `LXMERT_CPU` has it.
    ggml: &'static str,
    has_bf16: bool,
    /// Whether ggml has kernels for rearranged q8_0 and q4_0.
    repacks: bool,
}

const SETTINGS: [Setting; 3] = [
    Setting { cpu: Cpu::CortexA57, lowering: "neon", ggml: "armv8-a", has_bf16: false, repacks: false },
    Setting {
        cpu: Cpu::CortexA76,
        lowering: "dotprod",
        ggml: "armv8.2-a+dotprod+fp16",
        has_bf16: false,
        repacks: true,
    },
    Setting { cpu: Cpu::Max, lowering: "i8mm", ggml: "armv8.6-a+i8mm", has_bf16: true, repacks: true },
];

/// Multiplications of a first and a next answer, with 3129 answers, 20 tokens and 36 regions.
const MACS: [f64; 2] = [4820e6, 3425e6];

/// The most instructions of q8_0 with products of four or more bytes, for each of ggml's as this project uses it, and for each
/// that it would take with rearranged weights.
const GOALS: [f64; 2] = [0.30, 0.90];

pub fn count(arguments: &Arguments) -> Result<()> {
    let toolchain = Toolchain::set_up(arguments.toolchain)?;
    toolchain::need(&[(QEMU, "qemu-user")])?;
    let folder = TempDir::new().map_err(|error| format!("no temporary folder: {error}"))?;
    let counter = Counter { toolchain: &toolchain, plugin: plugin(folder.path())?, folder: folder.path() };

    println!("Millions of instructions, one thread, 20 tokens, 36 regions, 3129 answers:\n");
    println!(
        "| CPU | type | question | this project | ggml | ratio | ggml, repacked | ratio | per multiplication |"
    );
    println!("|---|---|---|---:|---:|---:|---:|---:|---:|");
    let mut missed = Vec::new();
    for setting in
        SETTINGS.iter().filter(|one| arguments.cpus.is_empty() || arguments.cpus.contains(&one.cpu))
    {
        let bench = program::build(&toolchain, Some(setting.ggml), &BENCH)?;
        for file_type in types(arguments, setting) {
            let model = folder.path().join(format!("{file_type}.gguf"));
            if !model.exists() {
                make_model(&file_type, &model)?;
            }
            let own = counter.answers(setting, &bench, &model, setting.lowering)?;
            let ggml = counter.answers(setting, &bench, &model, "ggml")?;
            let saved = match setting.repacks && ["q8_0", "q4_0"].contains(&&*file_type) {
                true => Some(counter.saved_by_repacking(setting, &file_type)?),
                false => None,
            };
            for (question, name) in ["first", "next"].into_iter().enumerate() {
                let (own, ggml) = (own[question].total(), ggml[question].total());
                let repacked = saved.map(|saved| ggml - saved * MACS[question]);
                let ratios = [Some(ggml), repacked].map(|theirs| theirs.map(|theirs| own / theirs));
                let cell =
                    |value: Option<f64>, digits| value.map_or("–".to_owned(), |x| format!("{x:.digits$}"));
                println!(
                    "| {} | {file_type} | {name} | {:.0} | {:.0} | {} | {} | {} | {:.3} |",
                    setting.cpu.name(),
                    own / 1e6,
                    ggml / 1e6,
                    cell(ratios[0], 2),
                    cell(repacked.map(|count| count / 1e6), 0),
                    cell(ratios[1], 2),
                    own / MACS[question],
                );
                for (ratio, goal) in ratios.into_iter().zip(GOALS) {
                    if setting.repacks && file_type == "q8_0" && ratio.is_some_and(|ratio| ratio > goal) {
                        missed.push(format!(
                            "{}, {name} question: {:.2} of ggml's",
                            setting.lowering,
                            ratio.unwrap_or(0.0)
                        ));
                    }
                }
            }
            if arguments.functions {
                counter.print_functions(&own[0])?;
            }
        }
    }
    match missed.is_empty() {
        true => Ok(()),
        false => Err(format!("more instructions than the goal: {}", missed.join("; "))),
    }
}

fn types(arguments: &Arguments, setting: &Setting) -> Vec<String> {
    match arguments.types.is_empty() {
        false => arguments.types.clone(),
        true => {
            let bf16 = setting.has_bf16.then_some("bf16");
            ["q8_0", "q4_0", "f32"].into_iter().chain(bf16).map(str::to_owned).collect()
        }
    }
}

/// Random weights of the base architecture, made on this machine.
fn make_model(file_type: &str, to: &Path) -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["run", "--release", "--quiet", "--package", "lxmert-converter", "--", file_type]);
    succeed(cargo.args(["--synthetic", "base"]).arg(to).stdout(Stdio::null()))
}

/// Compiles the plugin for this machine's qemu.
fn plugin(folder: &Path) -> Result<PathBuf> {
    let to = folder.join("count.so");
    // qemu-aarch64 version 7.2.22 (Debian ...)
    let version = output_of(Command::new(QEMU).arg("--version"))?;
    let major =
        version.split_whitespace().nth(2).and_then(|number| number.split('.').next()?.parse::<u32>().ok());
    let interface = if major.is_some_and(|major| major >= 9) { 2 } else { 1 };
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.args(["-O2", "-shared", "-fPIC"]).arg(format!("-DPLUGIN_VERSION={interface}"));
    compiler.arg("-o").arg(&to).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/arm/count.c"));
    succeed(&mut compiler).map(|()| to)
}

/// Instructions by function.
#[derive(Default)]
struct Counts(BTreeMap<String, f64>);

impl Counts {
    /// What the plugin has written.
    fn parse(text: &str) -> Result<Self> {
        let mut counts = Counts::default();
        for line in text.lines() {
            let counted =
                line.split_once('\t').and_then(|(count, name)| Some((count.parse::<u64>().ok()?, name)));
            let (count, name) = counted.ok_or_else(|| format!("the plugin wrote {line:?}"))?;
            *counts.0.entry(name.to_owned()).or_default() += count as f64;
        }
        Ok(counts)
    }

    /// What is left without what the other took.
    fn less(mut self, other: &Counts) -> Self {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= count;
        }
        self
    }

    fn total(&self) -> f64 {
        self.0.values().sum()
    }
}

struct Counter<'a> {
    toolchain: &'a Toolchain,
    plugin: PathBuf,
    folder: &'a Path,
}

impl Counter<'_> {
    /// Of a first question and of a next one: what a process takes that answers one more, so that its start falls out.
    fn answers(&self, setting: &Setting, bench: &Path, model: &Path, lowering: &str) -> Result<[Counts; 2]> {
        let process = |answers: &str| {
            let mut command = Command::new(QEMU);
            command.arg(bench).args(["--threads", "1", "--lowering", lowering, "--answer", answers]);
            command.arg("--model").arg(model);
            self.process(setting.cpu, command)
        };
        let one = process("1,0")?;
        Ok([process("2,0")?.less(&one), process("1,1")?.less(&one)])
    }

    /// Instructions for each multiplication that ggml's products of this type take less if the weights are rearranged, over those
    /// products that the model is made of.
    fn saved_by_repacking(&self, setting: &Setting, file_type: &str) -> Result<f64> {
        let product = program::build(self.toolchain, Some(setting.ggml), &PRODUCT)?;
        let (mut saved, mut macs) = (0.0, 0.0);
        for (columns, outputs) in [(768, 768), (768, 2304), (768, 3072), (3072, 768)] {
            for rows in [20, 36] {
                let process = |times: &str, repacked: bool| {
                    let mut command = Command::new(QEMU);
                    command.arg(&product).arg(file_type);
                    command.args([columns, outputs, rows].map(|size: u32| size.to_string())).arg(times);
                    command.args(repacked.then_some("repacked"));
                    self.process(setting.cpu, command).map(|counts| counts.total())
                };
                let one_more = |repacked| Ok::<_, String>(process("2", repacked)? - process("1", repacked)?);
                saved += one_more(false)? - one_more(true)?;
                macs += f64::from(columns * outputs * rows);
            }
        }
        Ok(saved / macs)
    }

    /// What a whole process takes.
    fn process(&self, cpu: Cpu, mut command: Command) -> Result<Counts> {
        let to = self.folder.join("counts.txt");
        // Commas keep qemu's options apart; two are one.
        let path = |path: &Path| path.display().to_string().replace(',', ",,");
        self.toolchain.emulate(&mut command, cpu);
        command.env("QEMU_PLUGIN", format!("{},to={}", path(&self.plugin), path(&to)));
        output_of(&mut command)?;
        let text = std::fs::read_to_string(&to)
            .map_err(|error| format!("the plugin's {}: {error}", to.display()))?;
        std::fs::remove_file(&to).map_err(|error| format!("{}: {error}", to.display()))?;
        Counts::parse(&text)
    }

    /// Functions with at least a hundredth of the whole.
    fn print_functions(&self, counts: &Counts) -> Result<()> {
        let mut functions: Vec<(&String, &f64)> = counts.0.iter().collect();
        functions.sort_by(|a, b| b.1.total_cmp(a.1));
        println!();
        for (name, count) in functions.into_iter().take_while(|(_, count)| **count >= counts.total() / 100.0)
        {
            let readable = output_of(self.toolchain.binutils().tool("c++filt").arg(name))?;
            println!("{:5.1} %  {}", count / counts.total() * 100.0, readable.trim());
        }
        println!();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_one_function_are_added_and_the_start_falls_out() {
        let one = Counts::parse("30\tstart\n5\ttile\n7\t?\n5\ttile\n").unwrap();
        let two = Counts::parse("30\tstart\n20\ttile\n9\t?\n").unwrap().less(&one);
        assert_eq!(two.total(), 12.0);
        assert_eq!(two.0["tile"], 10.0);
        assert_eq!(two.0["start"], 0.0);
        assert!(Counts::parse("tile\n").is_err());
    }
}
