//! Kernels for one CPU: the matrix products, attention and row operations of the model, for each instruction set, and the
//! program that runs them.
//!
//! A model has few rows (20 tokens, 36 regions) and many weights, so everything here is made for a product of a few rows with a
//! large matrix:
//!
//! - Matrices are packed once into panels of [`PANEL`] columns, in the order in which a tile of sums reads them (`packed`).
//! - Rows are prepared once for all products that read them: rounded to eight bits, or to bf16 (`generic::rows`).
//! - A tile of a product stays in registers; bias, activation and residual are applied before it leaves the first-level cache
//!   (`generic::product`).
//!
//! An algorithm is written once, in `generic`, over the traits of `vector`. `all`, `x86_64` and `aarch64` compile it for plain
//! Rust and for each instruction set, and all come to the same bits, but for products of bf16. Only the products of AMX, which are
//! instructions of their own, are written apart. A [`Kernels`] can only be had where
//! the CPU has its instructions, so that holding one is the proof that its functions may be called. `program` is the model as a list
//! of such operations, and `workers` the threads that share them.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod all;
mod generic;
pub mod measure;
mod packed;
mod program;
#[cfg(test)]
mod tests;
mod tiles;
mod vector;
mod workers;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use packed::{Element, LAYOUT, Layout, PackedMatrix, Packer, Source, place_bytes};
pub use program::OperationTime;
pub(crate) use program::{
    Call, Interrupted, Linear, Lookup, Placing, Plan, Program, Recorder, Rows, Sizes, StageName, Stream,
    Tables, Words,
};
pub(crate) use workers::Workers;

use generic::product::{BlockScaling, Quantized};
#[cfg(target_arch = "x86_64")]
use tiles::Registers;
use tiles::{Ahead, Multiplier, RowOrder, Tile, TileFn, Tiles};

/// Columns of a panel. Every instruction set reads the same panels: a multiple of all widths of tiles.
pub(crate) const PANEL: usize = 32;

/// Bytes of a unit: four 8-bit integers, two bf16 or one f32.
const UNIT: usize = 4;

/// Bytes of a cache line.
const LINE: usize = crate::ggml::ALIGNMENT;

/// The most rows of any tile.
const MAX_TILE_ROWS: usize = 32;

/// Columns of 8-bit integers that may have a scale of their own: a block of q8_0.
const BLOCK: usize = 32;

/// Bytes of a panel for one unit of each of its columns.
const PANEL_STEP: usize = PANEL * UNIT;

/// How many of `count` things make a block, if as few blocks as possible hold at most `most` each and about the same number.
#[inline(always)]
fn even_block(count: usize, most: usize) -> usize {
    count.div_ceil(count.div_ceil(most))
}

/// What is applied to the results of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Nothing.
    None,
    /// x Φ(x), by the error function.
    Gelu,
    /// GELU's approximation by the hyperbolic tangent.
    GeluNew,
    Relu,
    Silu,
    Tanh,
}

/// How a row of bytes stands for numbers: x = scale · (byte − zero).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
struct RowScale {
    scale: f32,
    zero: i32,
}

/// What becomes of a tile's sums.
struct Finish {
    rows: usize,
    /// The first column of the panel to keep, and the one after the last.
    first: usize,
    end: usize,
    /// A number per column of the panel.
    bias: *const f32,
    activation: Activation,
    /// Added after the activation, if not null: the number of the first row in column `first`.
    residual: *const f32,
    /// Numbers from one row to the next.
    residual_stride: usize,
    /// Where the number of the first row in column `first` goes.
    to: *mut f32,
    stride: usize,
}

/// One head of attention for one batch element. Strides are numbers from one row to the next.
struct Head {
    queries: usize,
    keys: usize,
    /// Numbers of a query, a key and a value.
    size: usize,
    q: *const f32,
    q_stride: usize,
    k: *const f32,
    k_stride: usize,
    v: *const f32,
    v_stride: usize,
    /// What is added to the scores of each key, or null.
    mask: *const f32,
    /// What scores are multiplied with.
    scale: f32,
    to: *mut f32,
    stride: usize,
    /// Where the weights go, `[queries, keys]`, or null.
    probabilities: *mut f32,
}

/// The functions of one instruction set.
struct Functions {
    int8: Tiles,
    blocks: Tiles,
    float: Tiles,
    /// Absent where the CPU does not multiply bf16.
    bf16: Option<Tiles>,
    /// Tiles of 8-bit integers that are faster for rows of whole steps, where the CPU has some.
    int8_matrices: Option<Tiles>,
    /// The same for bf16.
    bf16_matrices: Option<Tiles>,
    finish_quantized: unsafe fn(*const u32, &Quantized, &Finish),
    finish_blocks: unsafe fn(*const u32, &BlockScaling, &Finish),
    finish_exact: unsafe fn(*const u32, &Finish),
    quantize: unsafe fn(*const f32, usize, *mut u8, usize) -> RowScale,
    narrow: unsafe fn(*const f32, usize, *mut u8, usize),
    spread: unsafe fn(*const f32, usize, *mut u8, usize),
    mean: unsafe fn(*const f32, *const f32, f32, usize, *mut f32),
    layer_norm: unsafe fn(*const f32, *const f32, *const f32, f32, usize, *mut f32),
    attention: unsafe fn(&Head, *mut f32),
    pack: unsafe fn(packed::Panel<'_>, packed::PackScratch<'_>),
}

/// An instruction set that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum InstructionSet {
    /// Plain Rust, for any CPU.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX2 with AVX-VNNI.
    AvxVnni,
    /// AVX-512 with VNNI, and with BF16 where the CPU has it.
    Avx512Vnni,
    /// AVX-512 with AMX's products of matrices, under Linux, which is asked for their use when it is looked for: see
    /// [`InstructionSet::is_available`].
    Amx,
    /// NEON, which every 64-bit ARM CPU has.
    Neon,
    /// NEON with the dot product of 8-bit integers, `sdot`.
    DotProd,
    /// NEON with the matrix product of 8-bit integers, `usmmla`, and with BF16 where the CPU has it.
    I8mm,
}

impl InstructionSet {
    /// All of them, the most capable of each architecture last.
    pub const ALL: [InstructionSet; 8] = [
        Self::Portable,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512Vnni,
        Self::Amx,
        Self::Neon,
        Self::DotProd,
        Self::I8mm,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512Vnni => "avx512vnni",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::DotProd => "dotprod",
            Self::I8mm => "i8mm",
        }
    }

    /// Whether matrices in 16 bits are packed in bf16 for it.
    pub(crate) fn packs_bf16(self) -> bool {
        matches!(self, Self::Avx512Vnni | Self::Amx | Self::I8mm)
    }

    /// Whether this CPU has it. The first question about [`InstructionSet::Amx`] on a CPU that has it asks Linux for the use of its
    /// registers, by any thread of this process.
    pub fn is_available(self) -> bool {
        Kernels::new(self).is_some()
    }
}

/// The kernels of an instruction set that this CPU has.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    set: InstructionSet,
    functions: &'static Functions,
}

impl Kernels {
    /// The kernels of that instruction set, if this CPU has it.
    pub fn new(set: InstructionSet) -> Option<Self> {
        let functions = match set {
            InstructionSet::Portable => Some(&all::FUNCTIONS),
            #[cfg(target_arch = "x86_64")]
            _ => x86_64::functions(set),
            #[cfg(target_arch = "aarch64")]
            _ => aarch64::functions(set),
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            _ => None,
        };
        functions.map(|functions| Kernels { set, functions })
    }

    /// The most capable ones.
    pub fn best() -> Self {
        let mut sets = InstructionSet::ALL.into_iter().rev();
        sets.find_map(Self::new).expect("plain Rust runs everywhere")
    }

    pub fn set(self) -> InstructionSet {
        self.set
    }

    /// Whether there is a product of bf16.
    pub fn has_bf16(self) -> bool {
        self.functions.bf16.is_some()
    }

    fn pack(self, panel: packed::Panel<'_>, scratch: packed::PackScratch<'_>) {
        // SAFETY: the kernels exist, so the CPU has their instructions.
        unsafe { (self.functions.pack)(panel, scratch) }
    }

    /// The most rows of any of its tiles.
    fn max_tile_rows(self) -> usize {
        let Functions { int8, blocks, float, bf16, int8_matrices, bf16_matrices, .. } = *self.functions;
        let all = [Some(int8), Some(blocks), Some(float), bf16, int8_matrices, bf16_matrices];
        all.into_iter().flatten().map(Tiles::max_rows).max().unwrap_or(0)
    }

    /// The tiles that multiply with matrices of that layout.
    fn tiles(self, layout: Layout) -> Tiles {
        let functions = self.functions;
        let matrices = match layout.element {
            Element::Int8 => functions.int8_matrices,
            Element::Bf16 => functions.bf16_matrices,
            Element::Int8Blocks | Element::F32 => None,
        };
        matrices.filter(|tiles| tiles.take_rows_of(layout.units())).unwrap_or_else(|| match layout.element {
            Element::Int8 => functions.int8,
            Element::Int8Blocks => functions.blocks,
            Element::Bf16 => {
                functions.bf16.expect("matrices are only packed in elements that the CPU multiplies")
            }
            Element::F32 => functions.float,
        })
    }
}

/// The tiles of one element type, compiled for one instruction set: the functions by which `$dot` computes as many rows as the
/// list says.
macro_rules! tiles_of {
    ($name:ident [$($features:literal)?] $algorithm:ident<$dot:ty $(, $vector:ty)?> [$($rows:literal)*]) => {{
        $(#[target_feature(enable = $features)])?
        unsafe fn $name<const ROWS: usize, const AHEAD: usize>(
            tile: &crate::kernels::Tile,
            sums: *mut u32,
        ) {
            // SAFETY: the CPU has the features that this function is compiled with; the rest is the caller's.
            unsafe { crate::kernels::generic::product::$algorithm::<$dot, $($vector,)? ROWS, AHEAD>(tile, sums) }
        }
        crate::kernels::Tiles {
            by_rows: {
                const BY_ROWS: &[[crate::kernels::TileFn; 3]] =
                    &[$([$name::<$rows, 0>, $name::<$rows, 1>, $name::<$rows, 2>]),*];
                const { assert!(BY_ROWS.len() <= crate::kernels::MAX_TILE_ROWS) };
                BY_ROWS
            },
            parts: crate::kernels::PANEL / (2 * <$dot as crate::kernels::vector::Dot>::LANES),
            depth: <$dot as crate::kernels::vector::Dot>::DEPTH,
            fetched_lines: 1,
            order: crate::kernels::RowOrder::UnitByUnit,
            registers: None,
        }
    }};
}
use tiles_of;

/// Compiles the generic algorithms for one instruction set. Without features, for the target's own.
macro_rules! functions {
    ($table:ident, $(features: $features:literal,)? vector: $vector:ty, int8: $int8:ty [$($int8_rows:literal)*],
        blocks: $blocks:ty [$($blocks_rows:literal)*], float: $float:ty [$($float_rows:literal)*], bf16: $bf16:expr) => {
        const SIGNED_ROWS: bool = <$int8 as crate::kernels::vector::Dot>::SIGNED_ROWS;
        const _: () = assert!(SIGNED_ROWS == <$blocks as crate::kernels::vector::Dot>::SIGNED_ROWS);
        $(#[target_feature(enable = $features)])?
        unsafe fn finish_quantized(sums: *const u32, scaling: &Quantized, finish: &Finish) {
            // SAFETY: the CPU has the features that this function is compiled with; the rest is the caller's.
            unsafe {
                product::finish::<$vector, _>(sums, &product::QuantizedBy::<$int8>::new(scaling), finish)
            }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn finish_blocks(sums: *const u32, scaling: &BlockScaling, finish: &Finish) {
            // SAFETY: as above.
            unsafe { product::finish::<$vector, _>(sums, scaling, finish) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn finish_exact(sums: *const u32, finish: &Finish) {
            // SAFETY: as above.
            unsafe { product::finish::<$vector, _>(sums, &product::Exact, finish) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn quantize(x: *const f32, len: usize, to: *mut u8, stride: usize) -> RowScale {
            // SAFETY: as above.
            unsafe { rows::quantize::<$vector, SIGNED_ROWS>(x, len, to, stride) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn narrow(x: *const f32, len: usize, to: *mut u8, stride: usize) {
            // SAFETY: as above.
            unsafe { rows::narrow(x, len, to, stride) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn spread(x: *const f32, len: usize, to: *mut u8, stride: usize) {
            // SAFETY: as above.
            unsafe { rows::spread(x, len, to, stride) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn mean(a: *const f32, b: *const f32, scale: f32, len: usize, to: *mut f32) {
            // SAFETY: as above.
            unsafe { rows::mean::<$vector>(a, b, scale, len, to) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn layer_norm(
            x: *const f32,
            scale: *const f32,
            shift: *const f32,
            epsilon: f32,
            len: usize,
            to: *mut f32,
        ) {
            // SAFETY: as above.
            unsafe { rows::layer_norm::<$vector>(x, scale, shift, epsilon, len, to) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn attention(head: &Head, scratch: *mut f32) {
            // SAFETY: as above.
            unsafe { attention::attention::<$vector>(head, scratch) }
        }
        $(#[target_feature(enable = $features)])?
        unsafe fn pack(
            panel: crate::kernels::packed::Panel<'_>,
            scratch: crate::kernels::packed::PackScratch<'_>,
        ) {
            crate::kernels::packed::pack_panel(panel, scratch);
        }

        pub(in crate::kernels) const $table: Functions = Functions {
            int8: tiles_of!(tile_int8 [$($features)?] tile<$int8> [$($int8_rows)*]),
            blocks: tiles_of!(tile_blocks [$($features)?] tile_of_blocks<$blocks, $vector> [$($blocks_rows)*]),
            float: tiles_of!(tile_float [$($features)?] tile<$float> [$($float_rows)*]),
            bf16: $bf16,
            int8_matrices: None,
            bf16_matrices: None,
            finish_quantized,
            finish_blocks,
            finish_exact,
            quantize,
            narrow,
            spread,
            mean,
            layer_norm,
            attention,
            pack,
        };
    };
}
use functions;
