//! Tiles of sums: what they read, in which order, what they fetch meanwhile, and the registers that they need.

use super::packed::Layout;
use super::{LINE, PANEL_STEP, UNIT};

/// What one tile of a product reads.
pub(super) struct Tile {
    /// The first step of the panel.
    pub panel: *const u8,
    /// How many rows: only AMX's functions are for any number.
    pub count: usize,
    /// The first step of the prepared rows.
    pub rows: *const u8,
    /// Units of each row and column.
    pub units: usize,
    /// What to fetch meanwhile.
    pub ahead: *const u8,
}

/// Computes a tile of sums: of [`PANEL`] columns for each row.
pub(super) type TileFn = unsafe fn(&Tile, *mut u32);

/// How registers that have no shape of their own, AMX's, are given that of a tile of so many rows, and given up.
#[derive(Clone, Copy)]
pub(super) struct Registers {
    pub set_up: unsafe fn(usize),
    pub release: unsafe fn(),
}

/// The order of the units of prepared rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RowOrder {
    /// Unit after unit, those of a tile's rows side by side: for instructions that take one unit of a row, or two.
    UnitByUnit,
    /// Row after row: for instructions that take many units of each.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only AMX takes them so"))]
    RowByRow,
}

impl RowOrder {
    /// Bytes that a row of so many units takes.
    pub fn row_bytes(self, units: usize) -> usize {
        match self {
            Self::UnitByUnit => units * UNIT,
            // An odd number of cache lines, so that rows do not compete for the same sets of the cache.
            Self::RowByRow => ((units * UNIT).div_ceil(LINE) | 1) * LINE,
        }
    }

    /// Where a row of a tile of `rows` rows begins, in bytes from the tile's first, and how far on its next unit is.
    pub fn place(self, row: usize, rows: usize, units: usize) -> (usize, usize) {
        match self {
            Self::UnitByUnit => (row * UNIT, rows * UNIT),
            Self::RowByRow => (row * self.row_bytes(units), UNIT),
        }
    }
}

/// The tiles of one element type: three functions for each number of rows, which fetch ahead nothing, `fetched_lines` per step, or twice
/// as many.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub by_rows: &'static [[TileFn; 3]],
    /// How many times a tile goes through its panel, each time for some of the columns.
    pub parts: usize,
    /// Units of a step.
    pub depth: usize,
    /// Cache lines.
    pub fetched_lines: usize,
    pub order: RowOrder,
    /// What is to be set up before a tile, if anything.
    pub registers: Option<Registers>,
}

impl Tiles {
    /// The most rows of a tile.
    pub fn max_rows(self) -> usize {
        self.by_rows.len()
    }

    /// Whether they multiply rows of so many units.
    pub fn take_rows_of(self, units: usize) -> bool {
        match self.order {
            RowOrder::UnitByUnit => true,
            RowOrder::RowByRow => units > 0 && units.is_multiple_of(self.depth),
        }
    }

    /// How many times `fetched_lines` each step fetches, for so many tiles of a panel to fetch one of the same length.
    fn times(self, tiles: usize) -> usize {
        if tiles * self.parts * self.fetched_lines * LINE >= self.depth * PANEL_STEP { 1 } else { 2 }
    }

    /// Bytes that a tile fetches.
    fn fetched(self, units: usize, times: usize) -> usize {
        units / self.depth * times * self.fetched_lines * LINE * self.parts
    }
}

/// Computes tiles one after the other, and keeps the registers set up as long as the number of rows stays the same.
pub(super) struct Multiplier {
    tiles: Tiles,
    /// What the registers are set up for, or 0.
    rows: usize,
}

impl Multiplier {
    pub fn new(tiles: Tiles) -> Self {
        Multiplier { tiles, rows: 0 }
    }

    /// The sums of a tile, by the function that fetches so many `times`.
    ///
    /// # Safety
    /// The CPU has the instructions of the tiles, which take rows of so many units. Panel and rows are as long as the tile says, and
    /// there is room for as many rows of sums.
    #[inline(always)]
    pub unsafe fn tile(&mut self, tile: &Tile, times: usize, sums: *mut u32) {
        let function = self.tiles.by_rows[tile.count - 1][times];
        // SAFETY: as the caller vouches; there is a function for so many rows, so the registers hold them.
        unsafe {
            if let Some(registers) = self.tiles.registers
                && self.rows != tile.count
            {
                (registers.set_up)(tile.count);
                self.rows = tile.count;
            }
            function(tile, sums);
        }
    }
}

impl Drop for Multiplier {
    fn drop(&mut self) {
        if let Some(registers) = self.tiles.registers
            && self.rows > 0
        {
            // SAFETY: they were set up, so the CPU has them.
            unsafe { (registers.release)() }
        }
    }
}

/// The panel that is fetched while another is multiplied: by some of the tiles, each a part of it, and by none twice.
pub(super) struct Ahead {
    next: *const u8,
    times: usize,
    /// Bytes that a tile fetches.
    step: usize,
    left: usize,
}

impl Ahead {
    /// For so many tiles of a panel of that layout. As many bytes as it has are fetched from `next` on, which may be any address.
    pub fn new(tiles: Tiles, layout: Layout, count: usize, next: *const u8) -> Self {
        let times = tiles.times(count);
        Ahead { next, times, step: tiles.fetched(layout.units(), times), left: layout.panel_bytes() }
    }

    /// Which of its functions the next tile takes, and what it fetches.
    pub fn take(&mut self) -> (usize, *const u8) {
        let (times, from) = (if self.left > 0 { self.times } else { 0 }, self.next);
        self.next = from.wrapping_add(self.step);
        self.left = self.left.saturating_sub(self.step);
        (times, from)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::every_set;
    use super::super::{Element, PANEL};
    use super::*;

    #[test]
    fn the_next_panel_is_fetched_once_from_one_end_to_the_other() {
        every_set(|kernels| {
            for element in [Element::Int8, Element::Bf16, Element::F32] {
                if element == Element::Bf16 && !kernels.has_bf16() {
                    continue;
                }
                let layout = Layout { element, inputs: 768, outputs: PANEL };
                let tiles = kernels.tiles(layout);
                for count in 1..=40 {
                    let start = std::ptr::without_provenance(1 << 20);
                    let mut ahead = Ahead::new(tiles, layout, count, start);
                    let mut fetched = 0;
                    for _ in 0..count {
                        let (times, from) = ahead.take();
                        assert!(times <= 2 && (times > 0) == (fetched < layout.panel_bytes()));
                        if times > 0 {
                            assert_eq!(from.addr(), start.addr() + fetched);
                        }
                        fetched += tiles.fetched(layout.units(), times);
                    }
                    // Two lines a step are the most that any tile fetches.
                    let most = count * tiles.fetched(layout.units(), 2);
                    assert!(
                        fetched >= layout.panel_bytes().min(most),
                        "{:?} {element:?} {count}",
                        kernels.set()
                    );
                }
            }
        });
    }

    #[test]
    fn rows_one_after_the_other_are_an_odd_number_of_lines_apart() {
        for units in 1..200 {
            let bytes = RowOrder::RowByRow.row_bytes(units);
            assert!(bytes >= units * UNIT && bytes.is_multiple_of(LINE) && bytes / LINE % 2 == 1, "{units}");
        }
    }
}
