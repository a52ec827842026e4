//! Packs a matrix for a file.

use super::{Layout, PackScratch, Panel};
use crate::gguf::TensorType;
use crate::kernels::{Kernels, PANEL};

/// Packs a matrix whose rows come one after the other, in pieces of any number of rows.
pub(crate) struct Packer {
    pub(super) kernels: Kernels,
    layout: Layout,
    tensor_type: TensorType,
    /// The rows of the panel at hand that have come.
    rows: Vec<u8>,
    panel_rows_bytes: usize,
    panel: Vec<u8>,
    columns: Vec<u8>,
    row: Vec<f32>,
    scales: Vec<u8>,
    totals: Vec<u8>,
}

impl Packer {
    /// For rows in that type.
    ///
    /// # Panics
    /// If the rows are no whole number of the type's blocks.
    pub fn new(layout: Layout, tensor_type: TensorType) -> Self {
        let row_bytes = tensor_type.row_bytes(layout.inputs as u64).expect("rows of whole blocks") as usize;
        Packer {
            kernels: Kernels::best(),
            layout,
            tensor_type,
            rows: Vec::new(),
            panel_rows_bytes: PANEL * row_bytes,
            panel: vec![0; layout.panel_bytes()],
            columns: vec![0; PackScratch::column_bytes(layout)],
            row: vec![0.0; layout.inputs],
            scales: Vec::new(),
            totals: Vec::new(),
        }
    }

    /// Takes some rows, and appends the panels that are complete.
    pub fn add(&mut self, mut rows: &[u8], packed: &mut Vec<u8>) {
        while !rows.is_empty() {
            let (taken, rest) = rows.split_at(rows.len().min(self.panel_rows_bytes - self.rows.len()));
            self.rows.extend_from_slice(taken);
            if self.rows.len() == self.panel_rows_bytes {
                self.pack(packed);
            }
            rows = rest;
        }
    }

    /// Appends what comes after the last row.
    pub fn finish(mut self, packed: &mut Vec<u8>) {
        if !self.rows.is_empty() {
            self.pack(packed);
        }
        for (mut numbers, present) in
            [(self.scales, self.layout.columns().scales), (self.totals, self.layout.columns().totals)]
        {
            if present {
                numbers.resize(self.layout.column_bytes(), 0);
                packed.append(&mut numbers);
            }
        }
    }

    fn pack(&mut self, packed: &mut Vec<u8>) {
        let fresh = |numbers: &mut Vec<u8>| {
            let start = numbers.len();
            numbers.resize(start + PANEL * 4, 0);
            start
        };
        let (scales, totals) = (fresh(&mut self.scales), fresh(&mut self.totals));
        let panel = Panel {
            layout: self.layout,
            tensor_type: self.tensor_type,
            rows: &self.rows,
            bytes: &mut self.panel,
            scales: &mut self.scales[scales..],
            totals: &mut self.totals[totals..],
        };
        self.kernels.pack(panel, PackScratch { columns: &mut self.columns, row: &mut self.row });
        packed.extend_from_slice(&self.panel);
        self.rows.clear();
    }
}
