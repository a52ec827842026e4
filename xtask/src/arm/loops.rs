//! What the inner loops of the kernels' tiles are made of, read from their machine code: how many instructions a multiplication
//! takes, and whether any sum has no register to stay in. No qemu and no clock is needed for that.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::path::PathBuf;

use super::program;
use super::toolchain::{RustFrom, Toolchain};
use crate::tools::output_of;
use crate::{Result, root};

#[derive(clap::Args)]
pub struct Arguments {
    /// Write the table anew instead of comparing with it.
    #[arg(long)]
    update: bool,
    /// Where Rust's standard library for the target is from [default: rustup, or Debian where that has none].
    #[arg(long, value_name = "NAME")]
    toolchain: Option<RustFrom>,
}

/// How many more instructions than the table's a compiler may need.
const MARGIN: f64 = 1.05;

pub fn loops(arguments: &Arguments) -> Result<()> {
    let toolchain = Toolchain::set_up(arguments.toolchain)?;
    let found = find(&toolchain)?;
    print!("{}", table(&found));
    if !arguments.update {
        return compare(&toolchain, &found);
    }
    let path = table_path();
    let text = format!("{}\n\n{}", toolchain.rustc_version()?, table(&found));
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Compares the loops of this build with the table.
pub fn check(toolchain: &Toolchain) -> Result<()> {
    compare(toolchain, &find(toolchain)?)
}

fn table_path() -> PathBuf {
    root().join("benches/arm-loops.md")
}

type Loops = BTreeMap<Kernel, Loop>;

/// A function of a tile: `neon`, `tile_int8`, 5 rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kernel {
    set: String,
    element: String,
    rows: u64,
}

/// One turn of a loop: its instructions, and the multiplications that they do for the product.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Loop {
    macs: u64,
    multiply: u64,
    vector: u64,
    load: u64,
    store: u64,
    prefetch: u64,
    other: u64,
    /// Loads and stores on the stack, which are counted above too.
    spills: u64,
    /// Calls, whose own instructions are not counted.
    calls: u64,
}

impl Loop {
    fn instructions(&self) -> u64 {
        self.multiply + self.vector + self.load + self.store + self.prefetch + self.other
    }

    fn per_mac(&self) -> f64 {
        self.instructions() as f64 / self.macs as f64
    }
}

fn find(toolchain: &Toolchain) -> Result<Loops> {
    let program = program::build(toolchain, None, &program::VQA)?;
    let mut objdump = toolchain.binutils().tool("objdump");
    let text = output_of(objdump.args(["--disassemble", "--no-show-raw-insn", "--wide"]).arg(program))?;
    let mut loops = Loops::new();
    for function in functions(&text) {
        let Some(kernel) = Kernel::named(function.name) else { continue };
        let turn = function.turn(&kernel);
        let turn = turn.ok_or_else(|| format!("{} has no loop that can be counted", function.name))?;
        let counted = Loop::count(&kernel, &turn);
        // One that fetches two lines ahead takes a little more than one that fetches one.
        let known = loops.entry(kernel).or_insert(counted);
        if counted.per_mac() > known.per_mac() {
            *known = counted;
        }
    }
    match loops.is_empty() {
        true => Err("no kernels are in the program: were its symbols stripped?".to_owned()),
        false => Ok(loops),
    }
}

impl Kernel {
    /// From a symbol's name, as Rust's scheme v0 spells lxmert::kernels::aarch64::neon::FUNCTIONS::tile_int8::<5, 1>.
    fn named(symbol: &str) -> Option<Self> {
        let (_, path) = symbol.split_once("7kernels7aarch64")?;
        let (set, path) = identifier(path)?;
        let (_, path) = identifier(path)?;
        let (function, generics) = identifier(path)?;
        let element = function.strip_prefix("tile_")?;
        let (rows, fetched) = generics.strip_prefix("Kj")?.split_once('_')?;
        let rows = u64::from_str_radix(rows, 16).ok()?;
        // Those that fetch nothing are for what is left of a batch when a panel has been fetched.
        if fetched.starts_with("Kj0_") {
            return None;
        }
        Some(Kernel { set: set.to_owned(), element: element.to_owned(), rows })
    }
}

/// An identifier with its length before it, and what follows.
fn identifier(path: &str) -> Option<(&str, &str)> {
    let digits = path.find(|c: char| !c.is_ascii_digit())?;
    let (len, rest) = path.split_at(digits);
    // An underscore keeps the length apart from a name that starts with a digit.
    rest.strip_prefix('_').unwrap_or(rest).split_at_checked(len.parse().ok()?)
}

/// A function's code.
struct Function<'a> {
    name: &'a str,
    instructions: Vec<Instruction<'a>>,
}

#[derive(Clone, Copy)]
struct Instruction<'a> {
    address: u64,
    mnemonic: &'a str,
    operands: &'a str,
}

/// The functions of objdump's output.
fn functions(text: &str) -> Vec<Function<'_>> {
    let mut functions: Vec<Function<'_>> = Vec::new();
    for line in text.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            functions.push(Function { name, instructions: Vec::new() });
        } else if let (Some(function), Some(instruction)) = (functions.last_mut(), Instruction::of(line)) {
            function.instructions.push(instruction);
        }
    }
    functions
}

impl<'a> Function<'a> {
    /// A turn of the loop that adds up products: its instructions, each with how often it is executed.
    fn turn(&self, kernel: &Kernel) -> Option<Vec<(Instruction<'a>, u64)>> {
        if kernel.element == "blocks" { self.block() } else { self.innermost() }
    }

    /// Of the loops without a loop inside, the one with the most multiplying instructions.
    fn innermost(&self) -> Option<Vec<(Instruction<'a>, u64)>> {
        let loops = self.loops();
        let innermost = loops.iter().filter(|body| !loops.iter().any(|other| is_inside(other, body)));
        let bodies = innermost.map(|body| &self.instructions[body.clone()]);
        let multiplies = |body: &[Instruction<'_>]| body.iter().filter(|one| one.macs().is_some()).count();
        let busiest = bodies.max_by_key(|body| multiplies(body)).filter(|body| multiplies(body) > 0)?;
        Some(busiest.iter().map(|instruction| (*instruction, 1)).collect())
    }

    /// The loop from one block to the next, for what is done between two blocks may have no registers either. A loop inside, over the
    /// units of a block, is counted as often as makes the block.
    fn block(&self) -> Option<Vec<(Instruction<'a>, u64)>> {
        let loops = self.loops();
        let scales =
            |body: &Range<usize>| self.instructions[body.clone()].iter().filter(|one| one.scales()).count();
        let block = loops.iter().filter(|body| scales(body) > 0).min_by_key(|body| body.len())?;
        let mut inside = loops.iter().filter(|other| is_inside(other, block));
        let (units, more) = (inside.next(), inside.next());
        let turns = match (units, more) {
            (None, _) => 1,
            (Some(units), None) => {
                let macs: u64 = self.instructions[units.clone()].iter().filter_map(Instruction::macs).sum();
                let all = scales(block) as u64 * LANES * BLOCK;
                (macs > 0 && all.is_multiple_of(macs)).then(|| all / macs)?
            }
            (Some(_), Some(_)) => return None,
        };
        let times = |at: &usize| if units.is_some_and(|units| units.contains(at)) { turns } else { 1 };
        Some(block.clone().map(|at| (self.instructions[at], times(&at))).collect())
    }

    /// From where backward branches go to these.
    fn loops(&self) -> Vec<Range<usize>> {
        let at =
            |address| self.instructions.binary_search_by_key(&address, |instruction| instruction.address);
        let backward = self.instructions.iter().enumerate().filter_map(|(end, branch)| {
            let start = at(branch.target()?).ok()?;
            (start <= end).then_some(start..end + 1)
        });
        backward.collect()
    }
}

fn is_inside(inner: &Range<usize>, outer: &Range<usize>) -> bool {
    inner != outer && outer.start <= inner.start && inner.end <= outer.end
}

impl<'a> Instruction<'a> {
    /// Of a line such as `  40a1c:⇥sdot⇥v9.4s, v0.16b, v4.4b[1]`, where ⇥ is a tabulator.
    fn of(line: &'a str) -> Option<Self> {
        let (address, code) = line.split_once(":\t")?;
        let address = u64::from_str_radix(address.trim(), 16).ok()?;
        let (mnemonic, operands) = code.split_once('\t').unwrap_or((code, ""));
        Some(Instruction { address, mnemonic: mnemonic.trim(), operands: operands.trim() })
    }

    /// Where a branch within the function goes.
    fn target(&self) -> Option<u64> {
        let is_branch = self.mnemonic == "b"
            || self.mnemonic.starts_with("b.")
            || ["cbz", "cbnz", "tbz", "tbnz"].contains(&self.mnemonic);
        let last = self.operands.rsplit(", ").next()?;
        let address = last.split_whitespace().next()?;
        is_branch.then(|| u64::from_str_radix(address, 16).ok()).flatten()
    }

    /// The multiplications of an instruction that multiplies and adds, or whose products are added up by another one.
    fn macs(&self) -> Option<u64> {
        let lanes = |suffix: &str| self.operands.split(',').next().is_some_and(|to| to.ends_with(suffix));
        match self.mnemonic {
            "smmla" | "ummla" | "usmmla" => Some(32),
            "sdot" | "udot" | "usdot" | "sudot" | "bfmmla" => Some(16),
            "bfdot" => Some(8),
            "smull" | "smull2" | "smlal" | "smlal2" | "umull" | "umull2" | "umlal" | "umlal2"
                if lanes(".8h") =>
            {
                Some(8)
            }
            "fmla" if lanes(".4s") => Some(4),
            _ => None,
        }
    }

    /// Whether it multiplies a block's sums with their scales.
    fn scales(&self) -> bool {
        self.mnemonic == "fmla"
    }

    fn is_vector(&self) -> bool {
        let is_register = |operand: &str| {
            let name = operand.trim_start_matches(['{', ' ']);
            name.starts_with(['v', 'q', 'd', 's', 'h', 'b'])
                && name[1..].starts_with(|c: char| c.is_ascii_digit())
        };
        self.operands.split(", ").any(is_register)
    }
}

impl Loop {
    fn count(kernel: &Kernel, turn: &[(Instruction<'_>, u64)]) -> Self {
        let mut counted = Loop::default();
        let mut scaled = 0;
        for (instruction, times) in turn {
            let mnemonic = instruction.mnemonic;
            let is_load = mnemonic.starts_with("ld");
            let is_store = mnemonic.starts_with("st");
            let is_scaling = kernel.element == "blocks" && instruction.scales();
            scaled += u64::from(is_scaling);
            let class = match instruction.macs() {
                Some(macs) if !is_scaling => {
                    counted.macs += macs * times;
                    &mut counted.multiply
                }
                _ if is_load => &mut counted.load,
                _ if is_store => &mut counted.store,
                _ if mnemonic == "prfm" => &mut counted.prefetch,
                _ if instruction.is_vector() => &mut counted.vector,
                _ => &mut counted.other,
            };
            *class += times;
            let on_stack = ["[sp", "[x29"].iter().any(|base| instruction.operands.contains(base));
            counted.spills += times * u64::from((is_load || is_store) && on_stack);
            counted.calls += times * u64::from(["bl", "blr"].contains(&mnemonic));
        }
        // Products with a row of ones are not part of the result: a block's are known by its scales.
        if scaled > 0 {
            counted.macs = scaled * LANES * BLOCK;
        }
        counted
    }
}

/// Sums in a register, and what each of them adds up with one scale.
const LANES: u64 = 4;
const BLOCK: u64 = 32;

const HEAD: &str = "\
| module | element | rows | multiplications | multiplying | other vector | loads | stores | prefetches | other | on the stack | calls | instructions per multiplication |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";

fn table(loops: &Loops) -> String {
    let mut table = HEAD.to_owned();
    for (Kernel { set, element, rows }, turn) in loops {
        let Loop { macs, multiply, vector, load, store, prefetch, other, spills, calls } = turn;
        let per_mac = turn.per_mac();
        let _ = writeln!(
            table,
            "| {set} | {element} | {rows} | {macs} | {multiply} | {vector} | {load} | {store} | {prefetch} | {other} | {spills} | {calls} | {per_mac:.4} |"
        );
    }
    table
}

fn parse(table: &str) -> Result<Loops> {
    let rows = table.strip_prefix(HEAD).ok_or("its head is another")?;
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (set, element) = (cells.next()?.to_owned(), cells.next()?.to_owned());
        let numbers: Vec<u64> = cells.map_while(|cell| cell.parse().ok()).collect();
        let [rows, macs, multiply, vector, load, store, prefetch, other, spills, calls] =
            numbers.try_into().ok()?;
        let turn = Loop { macs, multiply, vector, load, store, prefetch, other, spills, calls };
        Some((Kernel { set, element, rows }, turn))
    };
    rows.lines().map(|line| row(line).ok_or_else(|| format!("{line:?} is no row"))).collect()
}

/// Fails if a kernel got worse than the table has it, or if the table has other kernels. By another compiler than the table's both may
/// be its doing, and are only told.
fn compare(toolchain: &Toolchain, found: &Loops) -> Result<()> {
    let path = table_path();
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}; {UPDATE}", path.display()))?;
    let (compiler, rows) = text.split_once("\n\n").unwrap_or_default();
    let expected = parse(rows).map_err(|error| format!("{}: {error}; {UPDATE}", path.display()))?;
    let worse = worse(found, &expected);
    if worse.is_empty() {
        return Ok(());
    }
    let version = toolchain.rustc_version()?;
    if version == compiler {
        return Err(format!("{}; if that is meant, {UPDATE}", worse.join("; ")));
    }
    eprintln!("warning: {}; but the table is of {compiler}, and this is {version}", worse.join("; "));
    Ok(())
}

const UPDATE: &str = "`cargo xtask arm loops --update` writes it anew";

fn worse(found: &Loops, expected: &Loops) -> Vec<String> {
    let name = |kernel: &Kernel| format!("{} {} of {} rows", kernel.set, kernel.element, kernel.rows);
    let gone = expected.keys().filter(|kernel| !found.contains_key(kernel));
    let gone = gone.map(|kernel| format!("{} is gone", name(kernel)));
    let changed = found.iter().filter_map(|(kernel, turn)| match expected.get(kernel) {
        None => Some(format!("{} is new", name(kernel))),
        Some(_) if turn.calls > 0 => Some(format!("{} calls a function in its inner loop", name(kernel))),
        Some(before) if turn.per_mac() > before.per_mac() * MARGIN => Some(format!(
            "{} takes {:.4} instructions per multiplication, not {:.4}",
            name(kernel),
            turn.per_mac(),
            before.per_mac()
        )),
        Some(before) if turn.spills > before.spills => Some(format!(
            "{} uses the stack {} times a turn, not {}",
            name(kernel),
            turn.spills,
            before.spills
        )),
        Some(_) => None,
    });
    gone.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
0000000000001000 <_RINvNvNtNtNtCsabc_6lxmert7kernels7aarch647dotprod9FUNCTIONS9tile_int8Kjc_Kj1_EBa_>:
    1000:\tldp\tx8, x11, [x0, #16]
    1004:\tsdot\tv0.4s, v1.16b, v2.4b[0]
    1008:\tprfm\tpldl2keep, [x18]
    100c:\tldp\tq1, q2, [x17], #32
    1010:\tsdot\tv0.4s, v1.16b, v2.4b[0]
    1014:\tsdot\tv3.4s, v1.16b, v2.4b[3]
    1018:\tstr\tq3, [sp, #16]
    101c:\tmov\tv5.16b, v8.16b
    101e:\tbl\t2000 <elsewhere>
    1020:\tsubs\tx10, x10, #0x1
    1024:\tb.ne\t1008 <_RINv+0x8>  // b.any
    1028:\tcbnz\tx15, 1000 <_RINv>
    102c:\tb\t2000 <elsewhere>
    1030:\tret
";

    #[test]
    fn counts_the_innermost_loop_by_class() {
        let functions = functions(TEXT);
        let [function] = &functions[..] else { panic!("one function") };
        let kernel = Kernel::named(function.name).unwrap();
        assert_eq!((&*kernel.set, &*kernel.element, kernel.rows), ("dotprod", "int8", 12));
        let turn = Loop::count(&kernel, &function.turn(&kernel).unwrap());
        let expected = Loop {
            macs: 32,
            multiply: 2,
            vector: 1,
            load: 1,
            store: 1,
            prefetch: 1,
            other: 3,
            spills: 1,
            calls: 1,
        };
        assert_eq!(turn, expected);
        assert_eq!(turn.per_mac(), 9.0 / 32.0);
    }

    #[test]
    fn a_block_has_the_multiplications_that_its_scales_are_for() {
        let unrolled =
            "0 <f>:\n 0:\tsdot\tv0.4s, v1.16b, v2.4b[0]\n 4:\tfmla\tv3.4s, v4.4s, v5.4s\n 8:\tb.ne\t0 <f>\n";
        let of = |element: &str| count(unrolled, element).unwrap();
        assert_eq!((of("blocks").macs, of("blocks").multiply), (128, 1));
        assert_eq!((of("float").macs, of("float").multiply), (20, 2));
    }

    #[test]
    fn a_loop_over_the_units_of_a_block_counts_as_often_as_it_is_gone_through() {
        let text = "\
0 <f>:
 0:\tldr\tq3, [sp, #16]
 4:\tsdot\tv0.4s, v1.16b, v2.4b[0]
 8:\tb.ne\t4 <f>
 c:\tfmla\tv3.4s, v4.4s, v5.4s
10:\tb.ne\t0 <f>
";
        let turn = count(text, "blocks").unwrap();
        assert_eq!((turn.macs, turn.multiply, turn.spills, turn.instructions()), (128, 8, 1, 8 * 2 + 3));
        // How often each of two is gone through is not known.
        let two = text.replace(" c:", " 9:\tsdot\tv0.4s, v1.16b, v2.4b[0]\n a:\tb.ne\t9 <f>\n c:");
        assert_eq!(count(&two, "blocks"), None);
    }

    /// What a turn of the first function is made of.
    fn count(text: &str, element: &str) -> Option<Loop> {
        let kernel = Kernel { set: String::new(), element: element.to_owned(), rows: 1 };
        functions(text)[0].turn(&kernel).map(|turn| Loop::count(&kernel, &turn))
    }

    #[test]
    fn more_instructions_or_more_use_of_the_stack_are_told() {
        let kernel = |rows| Kernel { set: "neon".to_owned(), element: "int8".to_owned(), rows };
        let turn = Loop { macs: 100, multiply: 100, ..Loop::default() };
        let expected = Loops::from([(kernel(1), turn), (kernel(2), turn)]);
        assert_eq!(parse(&table(&expected)).unwrap(), expected);

        let within = Loop { load: 5, ..turn };
        assert_eq!(worse(&Loops::from([(kernel(1), within), (kernel(2), turn)]), &expected), [""; 0]);
        let beyond = Loop { load: 6, ..turn };
        let spilled = Loop { load: 1, spills: 1, ..turn };
        assert_eq!(worse(&Loops::from([(kernel(1), beyond), (kernel(2), spilled)]), &expected).len(), 2);
        let calling = Loop { other: 1, calls: 1, ..turn };
        assert_eq!(worse(&Loops::from([(kernel(1), calling), (kernel(2), turn)]), &expected).len(), 1);
        assert_eq!(worse(&Loops::from([(kernel(1), turn), (kernel(3), turn)]), &expected).len(), 2);
    }
}
