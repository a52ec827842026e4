//! Every value of a checkpoint, in the order of the GGUF file, through all cores and little memory.

use std::sync::Mutex;
use std::thread::{self, Builder};

use lxmert::reserve::{Threads, Watch, before_thread};

use crate::Error;
use crate::plan::Planned;
use crate::source::Source;

/// Values that are worked on at a time by one thread; a longer row is still taken whole.
const PIECE_VALUES: u64 = 1 << 17;

/// Pieces of a batch for each thread. The threads meet at the end of a batch, so few would leave them waiting.
const PIECES_PER_THREAD: usize = 4;

/// Pieces of a batch beyond which many threads get one each: a piece takes up to a megabyte, twice.
const MANY_PIECES: usize = 32;

/// Some rows of one source tensor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Piece {
    /// The GGUF tensor, by its number.
    pub tensor: usize,
    /// The source tensor, by its number within [`Planned::sources`].
    pub source: usize,
    /// The first value's number within the source tensor.
    pub start: u64,
    /// How many values.
    pub len: u64,
}

impl Piece {
    /// Whether it ends its GGUF tensor.
    pub fn is_last_of(&self, tensor: &Planned) -> bool {
        self.source + 1 == tensor.sources.len() && self.start + self.len == tensor.source_values()
    }
}

/// What a thread works on, kept from piece to piece so that its memory is taken once.
struct Slot<T> {
    piece: Piece,
    values: Vec<f32>,
    bytes: Vec<u8>,
    result: Option<Result<T, Error>>,
}

/// Passes the values of all `tensors` through `work`, on several threads, and what it appends to its byte
/// buffer to `sink`, on this thread and in the order of the tensors.
///
/// The pieces do not depend on the number of threads, nor does the order in which `sink` gets them: while it
/// has one batch of pieces, the threads work on the next.
pub(crate) fn stream<T: Send>(
    source: &dyn Source,
    tensors: &[Planned],
    threads: usize,
    work: impl Fn(&Piece, &[f32], &mut Vec<u8>) -> T + Sync,
    mut sink: impl FnMut(&Piece, T, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut pieces = tensors.iter().enumerate().flat_map(|(number, tensor)| pieces_of(number, tensor));
    let (mut current, mut previous) = (Vec::new(), Vec::new());
    let watch = Watch::start(Threads::All, "a part of the conversion");
    loop {
        watch.check()?;
        fill(&mut current, &mut pieces, (threads * PIECES_PER_THREAD).min(threads.max(MANY_PIECES)));
        if current.is_empty() && previous.is_empty() {
            return Ok(());
        }
        let slots = Mutex::new(current.iter_mut());
        let next = || slots.lock().ok()?.next();
        let run = || {
            while let Some(slot) = next() {
                slot.run(source, tensors, &work);
            }
        };
        if threads == 1 {
            // Nothing would run beside it: a thread would only cost its start, once for every batch.
            run();
            drain(&mut previous, &mut sink)?;
        } else {
            thread::scope(|scope| {
                // What a thread that the system does not give would have done is left to the others, and to this one.
                let start =
                    || before_thread().is_ok_and(|()| Builder::new().spawn_scoped(scope, run).is_ok());
                let started = (0..threads).filter(|_| start()).count();
                let drained = drain(&mut previous, &mut sink);
                if started == 0 {
                    run();
                }
                drained
            })?;
        }
        std::mem::swap(&mut current, &mut previous);
    }
}

impl<T> Slot<T> {
    fn run(
        &mut self,
        source: &dyn Source,
        tensors: &[Planned],
        work: impl Fn(&Piece, &[f32], &mut Vec<u8>) -> T,
    ) {
        let piece = self.piece;
        let name = &tensors[piece.tensor].sources[piece.source];
        self.bytes.clear();
        let read = self.make_room().and_then(|()| source.read(name, piece.start, &mut self.values));
        self.result = Some(read.map(|()| work(&piece, &self.values, &mut self.bytes)));
    }

    /// Takes the memory for a piece: as many bytes as its values take where none is packed closer.
    fn make_room(&mut self) -> Result<(), Error> {
        let len = self.piece.len as usize;
        let bytes = len * size_of::<f32>();
        let refused = |_| lxmert::Error::OutOfMemory { what: "a piece of a tensor", bytes };
        self.values.try_reserve(len.saturating_sub(self.values.len())).map_err(refused)?;
        self.values.resize(len, 0.0);
        self.bytes.try_reserve(bytes).map_err(refused)?;
        Ok(())
    }
}

/// Gives each slot its next piece, with as many slots as asked for or pieces are left.
fn fill<T>(slots: &mut Vec<Slot<T>>, pieces: &mut impl Iterator<Item = Piece>, count: usize) {
    let batch: Vec<_> = pieces.take(count).collect();
    slots.resize_with(batch.len(), || Slot {
        piece: Piece::default(),
        values: Vec::new(),
        bytes: Vec::new(),
        result: None,
    });
    for (slot, piece) in slots.iter_mut().zip(batch) {
        slot.piece = piece;
    }
}

fn drain<T>(
    slots: &mut [Slot<T>],
    sink: &mut impl FnMut(&Piece, T, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    for slot in slots {
        if let Some(result) = slot.result.take() {
            sink(&slot.piece, result?, &slot.bytes)?;
        }
    }
    Ok(())
}

fn pieces_of(number: usize, tensor: &Planned) -> impl Iterator<Item = Piece> {
    let total = tensor.source_values();
    // A vector's only row may be as long as the vocabulary; it is not quantized, so it may be cut anywhere.
    let row_len = if tensor.dims.len() == 1 { 1 } else { tensor.row_len() };
    let step = (PIECE_VALUES / row_len).max(1) * row_len;
    (0..tensor.sources.len()).flat_map(move |source| {
        (0..total).step_by(step as usize).map(move |start| {
            let len = step.min(total - start);
            Piece { tensor: number, source, start, len }
        })
    })
}
