//! The sums of tiles are exact: the same integers on every instruction set, whatever saturates elsewhere.

use proptest::prelude::*;

use super::super::*;
use super::oracle::sign_flip;
use super::{Random, every_set};

const ALL_ROWS: std::ops::RangeInclusive<usize> = 1..=MAX_TILE_ROWS;

/// Rows whose units lie side by side, in the order in which the tiles read them.
fn in_order(order: RowOrder, rows: usize, units: usize, prepared: &[u8]) -> Vec<u8> {
    // What lies between rows must not count; in bf16 it is no number.
    let mut ordered = vec![0xff; rows * order.row_bytes(units)];
    for (at, unit) in prepared.chunks_exact(UNIT).enumerate() {
        let (start, stride) = order.place(at % rows, rows, units);
        ordered[start + at / rows * stride..][..UNIT].copy_from_slice(unit);
    }
    ordered
}

/// The sums of a tile, `[rows][PANEL]`.
fn sums(tiles: Tiles, rows: usize, times: usize, panel: &[u8], prepared: &[u8], units: usize) -> Vec<u32> {
    const CANARY: u32 = 0x7fc0_1234;
    assert!(panel.len() >= units * PANEL_STEP && prepared.len() == units * rows * UNIT);
    let prepared = in_order(tiles.order, rows, units, prepared);
    let mut sums = vec![CANARY; rows * PANEL + 2 * PANEL];
    // To fetch from outside of any memory must do no harm.
    let tile =
        Tile { panel: panel.as_ptr(), count: rows, rows: prepared.as_ptr(), units, ahead: std::ptr::null() };
    // SAFETY: the CPU has the instructions; the lengths are as checked, with room for all sums.
    unsafe { tiles.by_rows[rows - 1][times](&tile, sums.as_mut_ptr()) };
    assert!(sums[rows * PANEL..].iter().all(|sum| *sum == CANARY), "sums of rows that there are not");
    sums.truncate(rows * PANEL);
    sums
}

/// Σ over units of the products of one row and one column, which `multiply` adds up within a unit.
fn plain<T: std::iter::Sum>(
    (rows, units): (usize, usize),
    panel: &[u8],
    prepared: &[u8],
    multiply: impl Fn(&[u8], &[u8]) -> T,
) -> Vec<T> {
    let sum = |row: usize, column: usize| -> T {
        let unit = |n: usize| {
            let row = &prepared[(n * rows + row) * UNIT..][..UNIT];
            let column = &panel[n * PANEL_STEP + column * UNIT..][..UNIT];
            multiply(row, column)
        };
        (0..units).map(unit).sum()
    };
    (0..rows).flat_map(|row| (0..PANEL).map(move |column| (row, column))).map(|(r, c)| sum(r, c)).collect()
}

fn product_of_bytes(row: &[u8], column: &[u8]) -> i32 {
    row.iter().zip(column).map(|(row, column)| i32::from(*row) * i32::from(*column as i8)).sum()
}

fn product_of_signed_bytes(row: &[u8], column: &[u8]) -> i32 {
    row.iter().zip(column).map(|(row, column)| i32::from(*row as i8) * i32::from(*column as i8)).sum()
}

/// The tiles of a set for rows of so many units: for some lengths, some sets have two.
fn tiles_for(tiles: [Option<Tiles>; 2], units: usize) -> impl Iterator<Item = Tiles> {
    tiles.into_iter().flatten().filter(move |tiles| tiles.take_rows_of(units))
}

fn int8_tiles(kernels: Kernels, units: usize) -> impl Iterator<Item = Tiles> {
    tiles_for([Some(kernels.functions.int8), kernels.functions.int8_matrices], units)
}

/// Compares the sums of rows of that many bytes, stored as products read them.
fn check_int8(kernels: Kernels, rows: usize, panel: &[u8], prepared: &[u8], units: usize) {
    let product = if sign_flip(kernels) == 0 { product_of_bytes } else { product_of_signed_bytes };
    let mut tiles = int8_tiles(kernels, units).filter(|tiles| rows <= tiles.max_rows()).peekable();
    if tiles.peek().is_none() {
        return;
    }
    let expected = plain((rows, units), panel, prepared, product);
    for (tiles, times) in tiles.flat_map(|tiles| [0, 1, 2].map(|times| (tiles, times))) {
        let found: Vec<i32> =
            sums(tiles, rows, times, panel, prepared, units).into_iter().map(|sum| sum as i32).collect();
        let (set, depth) = (kernels.set(), tiles.depth);
        assert!(found == expected, "{set:?}: {rows} rows, {units} units, steps of {depth}, {times} times");
    }
}

fn random_bytes(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.bits() as u8).collect()
}

/// The smallest weight with which sums are exact. Packing leaves ±127; what is beyond may be in files that others have written.
fn smallest_level(kernels: Kernels) -> i8 {
    if kernels.set() == InstructionSet::Neon { -127 } else { -128 }
}

/// Weights from the smallest to 127.
fn random_levels(kernels: Kernels, random: &mut Random, len: usize) -> Vec<u8> {
    let smallest = i32::from(smallest_level(kernels));
    (0..len).map(|_| (random.below((128 - smallest) as usize) as i32 + smallest) as i8 as u8).collect()
}

#[test]
fn integers_of_every_number_of_rows() {
    every_set(|kernels| {
        for rows in ALL_ROWS {
            for units in [1, 2, 3, 7, 8, 9, 16, 25, 48, 192] {
                let mut random = Random((rows * 1000 + units) as u64);
                let panel = random_levels(kernels, &mut random, units * PANEL_STEP);
                let prepared = random_bytes(&mut random, units * rows * UNIT);
                check_int8(kernels, rows, &panel, &prepared, units);
            }
        }
    });
}

#[test]
fn the_largest_integers_do_not_saturate() {
    every_set(|kernels| {
        for weight in [127, -127, smallest_level(kernels)] {
            // 65536 inputs: the most for which no sum of products overflows.
            for (rows, units) in [(1, 1), (2, 768), (3, 7), (1, 1 << 14)] {
                for row in [0, 127, 128, 255] {
                    let panel = vec![weight as u8; units * PANEL_STEP];
                    let prepared = vec![row; units * rows * UNIT];
                    check_int8(kernels, rows, &panel, &prepared, units);
                }
            }
        }
        // Pairs that cancel only if neither half has been cut off.
        let panel: Vec<u8> =
            (0..9 * PANEL_STEP).map(|n| if n % 2 == 0 { 127 } else { -127i8 as u8 }).collect();
        check_int8(kernels, 1, &panel, &[255; 9 * UNIT], 9);
        let panel: Vec<u8> =
            (0..9 * PANEL_STEP).map(|n| if n % 4 < 2 { 127 } else { -127i8 as u8 }).collect();
        check_int8(kernels, 1, &panel, &[255; 9 * UNIT], 9);
    });
}

/// As the sum of one block's integers is exact in f32 and so is its product with a power of two, every way to add up blocks
/// in their order comes to the same bits.
fn check_blocks(
    kernels: Kernels,
    rows: usize,
    blocks: usize,
    levels: impl Fn(&mut Random) -> u8,
    rows_of: u8,
) {
    let mut random = Random((rows * 100 + blocks) as u64);
    let mut panel = Vec::new();
    for _ in 0..blocks {
        for _ in 0..PANEL {
            let scale = (random.below(9) as f32 - 4.0).exp2();
            panel.extend(scale.to_le_bytes());
        }
        panel.extend((0..BLOCK / UNIT * PANEL_STEP).map(|_| levels(&mut random)));
    }
    let units = blocks * BLOCK / UNIT;
    let prepared: Vec<u8> = (0..units * rows * UNIT).map(|_| rows_of | random.bits() as u8).collect();
    let block_bytes = (1 + BLOCK / UNIT) * PANEL_STEP;
    let mut expected = vec![0f32; rows * PANEL];
    for block in 0..blocks {
        let (scales, panel) = panel[block * block_bytes..][..block_bytes].split_at(PANEL_STEP);
        let prepared = &prepared[block * BLOCK * rows..];
        let sums = plain((rows, BLOCK / UNIT), panel, prepared, product_of_bytes);
        for (n, sum) in sums.into_iter().enumerate() {
            let scale = scales[n % PANEL * 4..][..4].try_into().unwrap();
            expected[n] += sum as f32 * f32::from_le_bytes(scale);
        }
    }
    // The sums are those of unsigned rows, however these are stored.
    let stored: Vec<u8> = prepared.iter().map(|byte| byte ^ sign_flip(kernels)).collect();
    for times in [0, 1, 2] {
        let found = sums(kernels.functions.blocks, rows, times, &panel, &stored, units);
        let expected: Vec<u32> = expected.iter().map(|sum| sum.to_bits()).collect();
        assert!(found == expected, "{:?}: {rows} rows, {blocks} blocks, {times} times", kernels.set());
    }
}

#[test]
fn blocks_of_every_number_of_rows() {
    every_set(|kernels| {
        for rows in ALL_ROWS.filter(|rows| *rows <= kernels.functions.blocks.max_rows()) {
            for blocks in [1, 2, 3, 24, 96] {
                check_blocks(kernels, rows, blocks, |random| random.bits() as u8, 0);
            }
            for level in [127, -127, -128i8] {
                check_blocks(kernels, rows, 96, |_| level as u8, 255);
                check_blocks(kernels, rows, 96, |_| level as u8, 0);
            }
        }
    });
}

/// Integers so small that any order of additions is exact.
#[test]
fn floats_of_every_number_of_rows() {
    every_set(|kernels| {
        for rows in ALL_ROWS.filter(|rows| *rows <= kernels.functions.float.max_rows()) {
            for units in [1, 2, 5, 100] {
                let mut random = Random((rows * 1000 + units) as u64);
                let mut numbers = |count: usize| -> Vec<u8> {
                    (0..count).flat_map(|_| (random.below(513) as f32 - 256.0).to_le_bytes()).collect()
                };
                let (panel, prepared) = (numbers(units * PANEL), numbers(units * rows));
                let float = |unit: &[u8]| f32::from_le_bytes(unit.try_into().unwrap());
                let expected = plain((rows, units), &panel, &prepared, |a, b| f64::from(float(a) * float(b)));
                for times in [0, 1, 2] {
                    let found = sums(kernels.functions.float, rows, times, &panel, &prepared, units);
                    let found: Vec<f64> =
                        found.into_iter().map(|sum| f64::from(f32::from_bits(sum))).collect();
                    assert!(found == expected, "{:?}: {rows} rows, {units} units", kernels.set());
                }
            }
        }
    });
}

#[test]
fn bf16_of_every_number_of_rows() {
    every_set(|kernels| {
        for rows in ALL_ROWS {
            for units in [1, 2, 5, 16, 96, 100] {
                let mut random = Random((rows * 1000 + units) as u64);
                let mut numbers = |count: usize| -> Vec<u8> {
                    let number = |_| half::bf16::from_f32(random.below(513) as f32 - 256.0).to_le_bytes();
                    (0..2 * count).flat_map(number).collect()
                };
                let (panel, prepared) = (numbers(units * PANEL), numbers(units * rows));
                let float = |unit: &[u8], n: usize| {
                    half::bf16::from_le_bytes([unit[2 * n], unit[2 * n + 1]]).to_f64()
                };
                let mut tiles = tiles_for([kernels.functions.bf16, kernels.functions.bf16_matrices], units)
                    .filter(|tiles| rows <= tiles.max_rows())
                    .peekable();
                if tiles.peek().is_none() {
                    continue;
                }
                let expected = plain((rows, units), &panel, &prepared, |a, b| {
                    float(a, 0) * float(b, 0) + float(a, 1) * float(b, 1)
                });
                for (tiles, times) in tiles.flat_map(|tiles| [0, 1, 2].map(|times| (tiles, times))) {
                    let found = sums(tiles, rows, times, &panel, &prepared, units);
                    let found: Vec<f64> =
                        found.into_iter().map(|sum| f64::from(f32::from_bits(sum))).collect();
                    assert!(found == expected, "{:?}: {rows} rows, {units} units", kernels.set());
                }
            }
        }
    });
}

/// Every function of a table must be that of its number of rows.
#[test]
fn tables_hold_all_rows_up_to_their_length() {
    every_set(|kernels| {
        let functions = kernels.functions;
        let matrices = [functions.int8_matrices, functions.bf16_matrices];
        let tables = [Some(functions.int8), Some(functions.blocks), Some(functions.float), functions.bf16];
        for tiles in tables.into_iter().chain(matrices).flatten() {
            assert!((1..=MAX_TILE_ROWS).contains(&tiles.max_rows()), "{:?}", kernels.set());
        }
    });
}

proptest! {
    #[test]
    fn integers_of_any_length(
        rows in ALL_ROWS,
        units in prop_oneof![1..300usize, (1..19usize).prop_map(|steps| 16 * steps)],
        seed: u64,
    ) {
        every_set(|kernels| {
            let most = int8_tiles(kernels, units).map(Tiles::max_rows).max().expect("tiles for any length");
            let rows = rows.min(most);
            let mut random = Random(seed);
            let panel = random_levels(kernels, &mut random, units * PANEL_STEP);
            let prepared = random_bytes(&mut random, units * rows * UNIT);
            check_int8(kernels, rows, &panel, &prepared, units);
        });
    }
}
