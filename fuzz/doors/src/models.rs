//! Files of models.

use std::num::NonZeroUsize;

use lxmert::gguf::{Header, TensorType};
use lxmert::{Answers, Error, Limits, Lowering, Model, Session, SessionOptions};
use lxmert_converter::{Options, convert_directory};

use crate::checkpoints::unconverted;
use crate::{Verdict, refused, scratch};

/// Larger files only take longer: every number in a header can be had in a smaller one.
const MAX_BYTES: usize = 4 << 20;

/// The most that the model and a session may hold together. Above it is the budget's error.
const BUDGET: usize = 256 << 20;

fn bounded(bytes: &[u8], limit: usize) -> Verdict {
    if bytes.len() > limit { Err(format!("{} bytes: not tried", bytes.len())) } else { Ok(()) }
}

/// The reader of headers, from the whole file and from its start alone.
pub fn gguf(bytes: &[u8]) -> Verdict {
    let start = &bytes[..bytes.len().min(Limits::DEFAULT.start_bytes())];
    let by_start = Header::parse_start(start, bytes.len() as u64);
    let whole = Header::parse(bytes);
    if let (Ok(whole), Ok(by_start)) = (&whole, &by_start) {
        // Not the metadata, in which may be numbers that are none, and equal to nothing.
        assert_eq!((whole.tensors(), whole.alignment()), (by_start.tensors(), by_start.alignment()));
    }
    let header = whole.map_err(refused)?;
    by_start.expect("its start is no worse than the whole file");
    for tensor in header.tensors() {
        assert!(bytes.get(tensor.range()).is_some_and(|data| data.len() as u64 == tensor.bytes()));
    }
    Ok(())
}

/// A file to a model, to a session in every way to compute, to the answer to a question.
pub fn session(bytes: &[u8]) -> Verdict {
    bounded(bytes, MAX_BYTES)?;
    let model = Model::from_bytes(bytes).map_err(refused)?;
    for lowering in [Lowering::Ggml, Lowering::Fastest] {
        match run(&model, lowering) {
            // A packed file is for the project's own kernels alone.
            Err(Error::Packed { .. }) if lowering == Lowering::Ggml => {}
            ran => ran.map_err(refused)?,
        }
    }
    Ok(())
}

fn run(model: &Model, lowering: Lowering) -> Result<(), Error> {
    let config = model.config();
    let mut options = SessionOptions::new(model);
    options.max_tokens = options.max_tokens.min(16);
    options.max_regions = options.max_regions.min(16);
    options.threads = 1;
    options.lowering = lowering;
    options.memory_budget = Some(BUDGET);
    let regions = options.max_regions.min(2);
    let images = config.head.images();
    let answers = lxmert::Output::QuestionAnsweringScore.exists_in(config);
    let mut session = Session::new(model, options)?;
    let features = vec![0.5; images * regions * config.visual_feat_dim];
    let boxes = vec![0.5; images * regions * config.visual_pos_dim];
    // Room for the word between the two marks, where positions have any.
    let tokens = session.options().max_tokens.min(3);
    if images > 1 || !answers {
        let ids: Vec<u32> = (0..images * tokens).map(|n| (n % config.vocab_size) as u32).collect();
        return session.run(&lxmert::Inputs {
            batch: images,
            tokens,
            regions,
            text: lxmert::Text::Ids(&ids),
            attention_mask: None,
            token_type_ids: None,
            visual_feats: &features,
            visual_pos: &boxes,
            visual_attention_mask: None,
        });
    }
    session.encode_regions(regions, &features, &boxes)?;
    let ids: Vec<u32> = (0..tokens).map(|n| (n % config.vocab_size) as u32).collect();
    let len = |answers: Answers<'_>| assert_eq!(Some(answers.top(usize::MAX).len()), config.head.labels());
    session.ask_tokens(&ids).map(len)?;
    match session.ask("what is it?") {
        Err(Error::Missing { .. }) => Ok(()),
        asked => asked.map(len),
    }
}

/// A file as the source of another one.
pub fn requantize(bytes: &[u8]) -> Verdict {
    bounded(bytes, MAX_BYTES)?;
    let path = scratch::file("in.gguf", bytes);
    let out = scratch::path("out.gguf");
    let options = Options { threads: NonZeroUsize::new(1), allow_requantize: true, ..Options::default() };
    // What a file is converted to is for its own bytes to say, so that one input always does the same.
    let types = [TensorType::Q8_0, TensorType::F16, TensorType::Q4K, TensorType::F32];
    let tensor_type = types[bytes.len() / 32 % types.len()];
    convert_directory(&path, tensor_type, &out, &options).map_err(unconverted)?;
    let made = std::fs::read(&out).expect("it has just been written");
    // What comes out of a conversion is a model.
    Model::from_bytes(&made).expect("a conversion makes a file that loads");
    Ok(())
}
