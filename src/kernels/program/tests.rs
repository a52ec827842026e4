//! Programs as a whole: every product as it is shared out to workers, and plans of operations drawn at random.

mod plans;
mod products;

use super::*;
use crate::ggml::Weights;

/// A program with its memory, ready to run.
struct Prepared {
    program: Program,
    memory: AlignedBuffer,
    workers: Workers,
}

impl Prepared {
    /// Memory begins as NaN: nothing may read what no operation has written.
    fn new(program: Program, workers: Workers) -> Self {
        let mut memory = AlignedBuffer::new(program.memory_bytes(), "a test").unwrap();
        memory.as_mut_slice().fill(0xff);
        Prepared { program, memory, workers }
    }

    fn fill(&mut self, buffer: usize, sizes: Sizes, values: &[f32]) {
        self.program.numbers(buffer, sizes, &mut self.memory).copy_from_slice(values);
    }

    fn numbers(&mut self, buffer: usize, sizes: Sizes) -> Vec<f32> {
        self.program.numbers(buffer, sizes, &mut self.memory).to_vec()
    }

    /// Runs a stage whose words, if any, are embeddings. All tables are the tensor `table`.
    fn run(&mut self, stage: StageName, sizes: Sizes, words: &[f32], weights: &Weights, table: &str) {
        let table = weights.stored(table);
        let call = Call {
            stage,
            sizes,
            text_masked: true,
            visual_masked: false,
            words: Words::Embeddings(words),
            given_tokens: sizes.tokens,
            token_types: None,
            tables: Tables { words: table, positions: table, types: table },
        };
        self.program.run(&call, &mut self.memory, &mut self.workers);
    }
}

type Packed = Result<Vec<PackedMatrix>, crate::Error>;

/// Packs the matrices that a program asks for.
fn pack(weights: &Weights) -> impl FnOnce(&[(String, Element)], usize, &mut Workers) -> Packed {
    |wanted, _, workers| {
        let stored: Vec<_> = wanted.iter().map(|(name, element)| (weights.stored(name), *element)).collect();
        PackedMatrix::pack(&stored, Kernels::best(), workers)
    }
}
