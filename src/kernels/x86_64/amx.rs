//! AMX: products of whole matrices, of up to 16 rows by 16 columns over 64 bytes, in one instruction: 8-bit integers, or bf16.
//! Everything else is AVX-512's.
//!
//! A panel is what the instructions want: the units of 16 columns side by side, unit after unit. Rows are prepared one after the
//! other, since an instruction takes 16 units of each. Up to 32 rows are two registers high and a panel is two registers wide, so that
//! four registers of sums take one load per product.
//!
//! Each tile sets the registers up for its number of rows and leaves them unused: nothing is kept from one to the next, and neither a
//! thread that sleeps nor another user of AMX in the process is in the way. That costs 100 ns, beside the 1000 and more that it takes
//! to read a panel from memory, so a tile has more rows than the registers hold and computes them block by block.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::avx512_bf16;
use crate::kernels::{
    Functions, LINE, MAX_TILE_ROWS, PANEL, PANEL_STEP, RowOrder, Tile, TileFn, Tiles, UNIT, even_block,
};

/// Units of a step: those of one row of a register.
const DEPTH: usize = 16;

/// Rows of a register.
const HEIGHT: usize = 16;

/// Bytes of a row of a register.
const WIDTH: usize = DEPTH * UNIT;

// A panel is two registers wide, each of its steps fills them, and a row of sums is as long as a unit of its columns. Lines are what
// `fetch` counts in.
const _: () = assert!(PANEL_STEP == 2 * WIDTH && DEPTH == HEIGHT && PANEL * UNIT == PANEL_STEP && LINE == 64);

/// Whether this CPU has AMX with 8-bit integers and bf16, and Linux lets this process use it.
///
/// Linux wants to be asked once, since it has to save 8 KiB more of a thread that is using the registers.
#[allow(unused_unsafe, reason = "`cpuid` is safe in newer versions of Rust")]
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        const OSXSAVE: u32 = 1 << 27;
        const XTILE: u64 = 1 << 17 | 1 << 18;
        // SAFETY: every x86-64 CPU has `cpuid`; where the system uses `xsave`, there is `xgetbv`.
        let saved = || unsafe { __cpuid(1).ecx & OSXSAVE != 0 && system_saves() & XTILE == XTILE };
        // SAFETY: as above.
        let has =
            unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8 };
        has && saved() && may_use()
    })
}

/// What the system saves of a thread that it takes off a CPU.
#[target_feature(enable = "xsave")]
unsafe fn system_saves() -> u64 {
    // SAFETY: the caller vouches for the CPU.
    unsafe { _xgetbv(0) }
}

/// Asks for the use of the registers.
#[cfg(target_os = "linux")]
fn may_use() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XTILEDATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call reads and writes no memory of this process. Kernels that do not know it return an error.
    unsafe {
        asm!(
            "syscall", inout("rax") result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
            out("rcx") _, out("r11") _, options(nostack),
        );
    }
    result == 0
}

/// Other systems have ways of their own, if any.
#[cfg(not(target_os = "linux"))]
fn may_use() -> bool {
    false
}

/// How many rows the registers have, and how many bytes these: what `ldtilecfg` reads.
#[repr(C, align(64))]
struct Shape {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The most rows whose sums the registers hold.
const BLOCK_ROWS: usize = 2 * HEIGHT;

/// The shape for each number of rows.
static SHAPES: [Shape; BLOCK_ROWS + 1] = {
    let mut shapes = [const { shape(0) }; BLOCK_ROWS + 1];
    let mut rows = 1;
    while rows < shapes.len() {
        shapes[rows] = shape(rows);
        rows += 1;
    }
    shapes
};

/// Registers 0 and 1 are the sums of the upper rows, 2 and 3 those of the lower ones; 4 and 5 are the rows, 6 and 7 the columns.
const fn shape(rows: usize) -> Shape {
    let (upper, lower) = halves(rows);
    let rows = [upper, upper, lower, lower, upper, lower, HEIGHT, HEIGHT];
    let mut shape = Shape { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut register = 0;
    while register < rows.len() {
        // A register is either used or has no size at all.
        shape.rows[register] = rows[register] as u8;
        shape.row_bytes[register] = if rows[register] > 0 { WIDTH as u16 } else { 0 };
        register += 1;
    }
    shape
}

/// How many rows the upper registers take, and how many the lower ones.
const fn halves(rows: usize) -> (usize, usize) {
    let upper = if rows > HEIGHT { rows.div_ceil(2) } else { rows };
    (upper, rows - upper)
}

/// Fetches cache lines at these distances, unless nothing is to be fetched, and with two times those that are another 1024 bytes ahead.
macro_rules! fetch {
    ($($at:literal)*) => {
        concat!(
            ".if {times} > 0\n",
            $("prefetcht1 [{ahead} + ", $at, "]\n",)*
            ".endif\n",
            ".if {times} == 2\n",
            $("prefetcht1 [{ahead} + 1024 + ", $at, "]\n",)*
            ".endif",
        )
    };
}

/// Defines the sums of a tile by the instruction that `$multiply` names.
macro_rules! sums_by {
    ($name:ident, $block:ident, $multiply:literal) => {
        /// # Safety
        /// This process may use AMX. The tile has a row at least, and at most [`MAX_TILE_ROWS`], which lie one after the other as
        /// [`RowOrder::RowByRow`] says. Panel and rows are whole steps, one at least. There is room for as many rows of sums.
        unsafe fn $name<const TIMES: usize>(tile: &Tile, sums: *mut u32) {
            const { assert!(TIMES <= 2) };
            let rows = even_block(tile.count, BLOCK_ROWS);
            let blocks = tile.count.div_ceil(rows);
            // SAFETY: the shape is one that the CPU takes; the blocks' rows are the tile's. Between the blocks nothing but these
            // functions uses the registers, which are free when this begins and when it ends.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &SHAPES[rows], options(nostack, preserves_flags, readonly));
                for block in 0..blocks {
                    // The last one begins early enough to be whole: what it computes again comes out the same.
                    let first = (block * rows).min(tile.count - rows);
                    let sums = sums.add(first * PANEL);
                    // What is to be fetched is shared out to the first two blocks, if there are two.
                    let times = if blocks == 1 { TIMES } else { usize::from(block < TIMES) };
                    match times {
                        0 => $block::<0>(tile, (first, rows), tile.ahead, sums),
                        1 => {
                            let fetched = tile.units / DEPTH * DEPTH * LINE;
                            $block::<1>(tile, (first, rows), tile.ahead.wrapping_add(block * fetched), sums);
                        }
                        _ => $block::<2>(tile, (first, rows), tile.ahead, sums),
                    }
                }
                asm!("tilerelease", options(nostack, preserves_flags, nomem));
            }
        }

        /// The sums of `rows` of the tile's rows, from `first` on.
        ///
        /// # Safety
        /// As above; the registers have the shape for so many rows.
        unsafe fn $block<const TIMES: usize>(
            tile: &Tile,
            (first, rows): (usize, usize),
            ahead: *const u8,
            sums: *mut u32,
        ) {
            let row_bytes = RowOrder::RowByRow.row_bytes(tile.units);
            let (upper, lower) = halves(rows);
            let upper_rows = tile.rows.wrapping_add(first * row_bytes);
            let lower_rows = upper_rows.wrapping_add(upper * row_bytes);
            let lower_sums = sums.wrapping_add(upper * PANEL);
            // SAFETY: a step reads 16 units of each column and row; with no lower rows their registers have no size, and are not
            // touched. A prefetch may name any address.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "test {lower}, {lower}",
                    "jz 3f",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    fetch!("0" "64" "128" "192"),
                    "tileloadd tmm6, [{panel} + {step}*1]",
                    fetch!("256" "320" "384" "448"),
                    "tileloadd tmm4, [{rows} + {row_bytes}*1]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    fetch!("512" "576" "640" "704"),
                    "tileloadd tmm7, [{panel} + {step}*1 + {width}]",
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    fetch!("768" "832" "896" "960"),
                    "tileloadd tmm5, [{lower_rows} + {row_bytes}*1]",
                    concat!($multiply, " tmm2, tmm5, tmm6"),
                    concat!($multiply, " tmm3, tmm5, tmm7"),
                    "add {panel}, {panel_step}",
                    "add {rows}, {width}",
                    "add {lower_rows}, {width}",
                    "add {ahead}, {fetched}",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{lower_sums} + {step}*1], tmm2",
                    "tilestored [{lower_sums} + {step}*1 + {width}], tmm3",
                    "jmp 4f",
                    "3:",
                    fetch!("0" "64" "128" "192" "256" "320"),
                    "tileloadd tmm4, [{rows} + {row_bytes}*1]",
                    fetch!("384" "448" "512" "576" "640"),
                    "tileloadd tmm6, [{panel} + {step}*1]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    fetch!("704" "768" "832" "896" "960"),
                    "tileloadd tmm7, [{panel} + {step}*1 + {width}]",
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    "add {panel}, {panel_step}",
                    "add {rows}, {width}",
                    "add {ahead}, {fetched}",
                    "dec {steps}",
                    "jnz 3b",
                    "4:",
                    "tilestored [{sums} + {step}*1], tmm0",
                    "tilestored [{sums} + {step}*1 + {width}], tmm1",
                    lower = in(reg) lower,
                    panel = inout(reg) tile.panel => _,
                    // From one unit of a panel to the next, and from one row of sums to the next.
                    step = in(reg) PANEL_STEP,
                    panel_step = const DEPTH * PANEL_STEP,
                    width = const WIDTH,
                    rows = inout(reg) upper_rows => _,
                    lower_rows = inout(reg) lower_rows => _,
                    row_bytes = in(reg) row_bytes,
                    ahead = inout(reg) ahead => _,
                    fetched = const TIMES * DEPTH * LINE,
                    times = const TIMES,
                    steps = inout(reg) tile.units / DEPTH => _,
                    sums = in(reg) sums,
                    lower_sums = in(reg) lower_sums,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

sums_by! { int8, block_of_int8, "tdpbusd" }
sums_by! { bf16, block_of_bf16, "tdpbf16ps" }

/// AVX-512's functions, with the products of AMX.
pub(super) const FUNCTIONS: Functions = Functions {
    int8_matrices: Some(tiles(&[[int8::<0>, int8::<1>, int8::<2>]; MAX_TILE_ROWS])),
    bf16_matrices: Some(tiles(&[[bf16::<0>, bf16::<1>, bf16::<2>]; MAX_TILE_ROWS])),
    ..avx512_bf16::FUNCTIONS
};

const fn tiles(by_rows: &'static [[TileFn; 3]]) -> Tiles {
    Tiles { by_rows, parts: 1, depth: DEPTH, fetched_lines: DEPTH, order: RowOrder::RowByRow }
}

/// Multiplies registers `times` times and returns how many multiplications that were: what `measure::peak` takes the time of. It is
/// here since it needs the registers' shape.
macro_rules! peak {
    ($name:ident, $multiply:literal, $each:literal) => {
        /// # Safety
        /// This process may use AMX; `times` is not 0.
        pub(in crate::kernels) unsafe fn $name(times: u64) -> u64 {
            // SAFETY: as the caller vouches. The registers are zero once they have a shape.
            unsafe {
                asm!(
                    "ldtilecfg [{shape}]",
                    "2:",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    concat!($multiply, " tmm2, tmm5, tmm6"),
                    concat!($multiply, " tmm3, tmm5, tmm7"),
                    "dec {times}",
                    "jnz 2b",
                    "tilerelease",
                    shape = in(reg) &SHAPES[BLOCK_ROWS],
                    times = inout(reg) times => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
            4 * times * $each * (HEIGHT * HEIGHT * DEPTH) as u64
        }
    };
}

peak! { tdpbusd, "tdpbusd", 4 }
peak! { tdpbf16ps, "tdpbf16ps", 2 }
