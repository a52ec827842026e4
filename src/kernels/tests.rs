//! Every kernel, for every instruction set that this CPU has, against oracles that are written plainly.

mod attention;
mod functions;
pub(super) mod oracle;
mod rows;
mod sums;

use std::io::Write;
use std::sync::Once;

use super::*;

/// Calls `check` for every instruction set that this CPU has, and says once which ones stay untested.
pub(super) fn every_set(mut check: impl FnMut(Kernels)) {
    static REPORT: Once = Once::new();
    for set in InstructionSet::ALL {
        if let Some(kernels) = Kernels::new(set) {
            check(kernels);
        }
    }
    REPORT.call_once(|| {
        for set in InstructionSet::ALL.into_iter().filter(|set| !set.is_available()) {
            // Past the test harness, which shows no output of tests that pass.
            let _ = writeln!(std::io::stderr(), "untested, since this CPU lacks it: {}", set.name());
        }
    });
}

/// Repeatable numbers: the SplitMix64 generator.
pub(super) struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One of `0..end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// A number in −1..1.
    pub fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }
}

#[test]
fn the_best_kernels_are_of_the_last_set_that_is_available() {
    let available = InstructionSet::ALL.into_iter().rev().find(|set| set.is_available());
    assert_eq!(available, Some(Kernels::best().set()));
    assert!(InstructionSet::Portable.is_available());
}
