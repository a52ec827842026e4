//! What a running model is given.

use std::cell::RefCell;

use lxmert::text::Tokenizer;
use lxmert::vision::{FeatureOptions, decode_image, load_features};
use lxmert::{Model, Session, SessionOptions};

use crate::{Verdict, parts, refused, scratch, tiny};

/// A `tokenizer.json`, then a text for it.
pub fn tokenizer(bytes: &[u8]) -> Verdict {
    let [json, text] = parts::split(bytes);
    let json = str::from_utf8(json).map_err(refused)?;
    let tokenizer = Tokenizer::from_json(json).map_err(refused)?;
    let text = str::from_utf8(text).map_err(refused)?;
    let ids = tokenizer.encode(text).map_err(refused)?;
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()), "{ids:?}");
    // What a file stores is the same tokenizer.
    let stored = tokenizer.to_json().map_err(refused)?;
    let again = Tokenizer::from_json(&stored).expect("its own text is a tokenizer");
    assert_eq!(again.encode(text).as_ref(), Ok(&ids));
    let cut = tokenizer.encode_truncated(text, 3).expect("what can be encoded can be cut");
    assert!(cut.ids.len() <= 3);
    Ok(())
}

thread_local! {
    static SESSION: RefCell<Session> = RefCell::new(built_in());
}

/// The tiny model with an image, ready for questions.
fn built_in() -> Session {
    let model = Model::from_bytes(&tiny::model().encode()).expect("the tiny model loads");
    let mut options = SessionOptions::new(&model);
    options.threads = 1;
    let mut session = Session::new(&model, options).expect("the tiny model needs little");
    session.encode_regions(1, &[0.5; tiny::FEATURES], &[0.5; 4]).expect("one good region");
    session
}

/// The text of a question.
pub fn question(bytes: &[u8]) -> Verdict {
    let text = str::from_utf8(bytes).map_err(refused)?;
    SESSION.with_borrow_mut(|session| session.ask(text).map(|_| ()).map_err(refused))
}

/// A file of features: a byte for its kind, then the file; of NumPy's two, features and boxes.
pub fn features(bytes: &[u8]) -> Verdict {
    let Some((kind, bytes)) = bytes.split_first() else { return Err("no bytes".to_owned()) };
    let mut options = FeatureOptions::default();
    let path = match kind % 4 {
        0 => scratch::file("features.safetensors", bytes),
        1 => scratch::file("features.npz", bytes),
        2 => {
            let [features, boxes] = parts::split(bytes);
            options.boxes = Some(scratch::file("boxes.npy", boxes));
            scratch::file("features.npy", features)
        }
        _ => {
            options.image_id = Some("first".to_owned());
            scratch::file("features.tsv", bytes)
        }
    };
    let regions = load_features(&path, &options).map_err(refused)?;
    assert_eq!(regions.features().len(), regions.len() * regions.feature_len());
    Ok(())
}

/// A picture, cut into patches.
pub fn picture(bytes: &[u8]) -> Verdict {
    let image = decode_image(bytes).map_err(refused)?;
    tiny::grid().regions(&image).map_err(refused)?;
    Ok(())
}
