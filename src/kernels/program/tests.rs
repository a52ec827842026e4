//! Programs as a whole: every product as it is shared out to workers, and plans of operations drawn at random.

mod plans;
mod products;

use super::*;
use crate::kernels::packed::Source;
use crate::kernels::workers::Workers;

/// A program with its threads, ready to run.
struct Prepared {
    program: Program,
    workers: Workers,
}

impl Prepared {
    /// Memory begins as NaN: nothing may read what no operation has written.
    fn new(plan: Plan, weights: &Arc<Weights>, threads: usize) -> Self {
        let mut workers = Workers::new(threads, None).unwrap();
        let source = |(name, layout): &(String, Layout)| Source::rows(weights.stored(name), layout.element);
        let sources: Vec<Source> = plan.matrices().iter().map(source).collect();
        let matrices =
            PackedMatrix::load(weights, &sources, Kernels::best(), &mut workers, &|_| true).unwrap();
        let mut memory = AlignedBuffer::new(plan.memory_bytes(), "a test").unwrap();
        memory.as_mut_slice().fill(0xff);
        Prepared { program: plan.build(memory, weights, matrices, false).unwrap(), workers }
    }

    fn fill(&mut self, buffer: usize, sizes: Sizes, values: &[f32]) {
        self.program.numbers(buffer, sizes).copy_from_slice(values);
    }

    fn numbers(&mut self, buffer: usize, sizes: Sizes) -> Vec<f32> {
        self.program.numbers(buffer, sizes).to_vec()
    }

    /// Runs a stage whose words, if any, are embeddings. All tables are the tensor `table`.
    fn run(&mut self, stage: StageName, sizes: Sizes, words: &[f32], weights: &Weights, table: &str) {
        self.try_run(stage, sizes, words, weights, table, &|| false).unwrap();
    }

    fn try_run(
        &mut self,
        stage: StageName,
        sizes: Sizes,
        words: &[f32],
        weights: &Weights,
        table: &str,
        give_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Interrupted> {
        let table = Lookup { stored: weights.stored(table), bytes: None };
        let call = Call {
            stage,
            sizes,
            text_masked: true,
            visual_masked: false,
            words: Words::Embeddings(words),
            given_tokens: sizes.tokens,
            token_types: None,
            tables: Tables { words: table, positions: table, types: table },
            give_up,
        };
        self.program.run(&call, &mut self.workers)
    }
}
