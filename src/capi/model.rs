//! A model: loading, and what it says about itself.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use super::arguments::{self, Bool, Out, Versioned, place, places, text};
use super::errors::{made, status};
use super::handles::{Handle, Kind};
use super::loader::{CallerFile, lxmert_loader};
use super::strings::{CStrings, c_string};
use super::{Failure, lxmert_status};
use crate::model::Head;
use crate::vision::FrontEnd;
use crate::{Error, Model};

/// A model: weights, tokenizer and answers of one file. It never changes, and any number of sessions on any threads share it.
pub struct lxmert_model {
    _opaque: (),
}

/// What stands on top of a model's encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum lxmert_head {
    /// Hidden states and the pooled output only.
    LXMERT_HEAD_NONE = 0,
    /// Masked words, image-text match and, as trained, answers and objects.
    LXMERT_HEAD_PRETRAINING = 1,
    /// Answers to questions.
    LXMERT_HEAD_QUESTION_ANSWERING = 2,
    /// Whether a statement is true of two images: a batch of two for every answer.
    LXMERT_HEAD_NLVR2 = 3,
}

/// How an image becomes regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum lxmert_front_end {
    /// Only from ready features: the detector is not part of the model.
    LXMERT_FRONT_END_REGIONS = 0,
    /// From pixels, by cutting the image into patches.
    LXMERT_FRONT_END_PATCH_GRID = 1,
}

/// What a model is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_model_info {
    /// sizeof(lxmert_model_info): LXMERT_MODEL_INFO_INIT sets it.
    pub struct_size: usize,
    /// One of lxmert_head.
    pub head: i32,
    /// One of lxmert_front_end.
    pub front_end: i32,
    /// Answers that the model tells apart; 0 without an answer head.
    pub label_count: usize,
    /// Whether the file holds the answers' texts.
    pub has_label_texts: Bool,
    /// Whether the file holds a tokenizer, so that lxmert_ask takes questions as text.
    pub has_tokenizer: Bool,
    /// Images that one answer is about: 1, or 2 for NLVR2.
    pub images_per_answer: usize,
    /// Width of every hidden state.
    pub hidden_size: usize,
    /// Rows of the word embedding: token ids are below it.
    pub vocab_size: usize,
    /// The longest question in tokens that a session can be made for, [CLS] and [SEP] included.
    pub max_tokens: usize,
    /// The most regions of an image that a session can be made for.
    pub max_regions: usize,
    /// The most pairs of image and question in one run that a session can be made for.
    pub max_batch: usize,
    /// Features of one region.
    pub feature_size: usize,
    /// Numbers of one region's box.
    pub box_size: usize,
    /// Patches from top to bottom; 0 without a patch grid.
    pub grid_rows: usize,
    /// Patches from left to right; 0 without a patch grid.
    pub grid_columns: usize,
    /// How many numbers the weights are.
    pub parameters: u64,
    /// Size of the file in bytes.
    pub file_bytes: u64,
}

// SAFETY: `repr(C)` with the size first; numbers.
unsafe impl Versioned for lxmert_model_info {
    const NAME: &'static str = "lxmert_model_info";
    const FIRST: usize = std::mem::offset_of!(lxmert_model_info, has_label_texts);
}

/// Behind a model's handle.
pub(super) struct LoadedModel {
    pub model: Model,
    pub labels: Option<Arc<CStrings>>,
    name: Option<CString>,
}

impl Kind for LoadedModel {
    const MARK: u64 = u64::from_le_bytes(*b"\x91lxmodel");
    const NAME: &'static str = "model";
    type Opaque = lxmert_model;
}

// Any threads may use a model at once.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<LoadedModel>();
};

impl LoadedModel {
    fn new(model: Model) -> Self {
        LoadedModel {
            labels: model.labels().map(|labels| Arc::new(CStrings::new(labels))),
            name: model.name().map(c_string),
            model,
        }
    }
}

/// Makes a handle of what `load` gives.
///
/// # Safety
/// `out` is NULL, or can be written.
unsafe fn create(
    out: *mut *mut lxmert_model,
    load: impl FnOnce() -> Result<Model, Failure>,
) -> lxmert_status {
    status(|| {
        // SAFETY: this function's contract.
        let out = unsafe { place("out", out) }?;
        out.write(std::ptr::null_mut());
        let handle = Handle::new(|| Ok(LoadedModel::new(load()?)))?;
        out.write(Handle::give_out(handle));
        Ok(())
    })
}

/// What a file is to blame for, whichever rule it breaks.
fn in_model(error: Error) -> Failure {
    let status = match lxmert_status::of(&error) {
        lxmert_status::LXMERT_INVALID_ARGUMENT | lxmert_status::LXMERT_LIMIT => {
            lxmert_status::LXMERT_INVALID_MODEL
        }
        status => status,
    };
    Failure::new(status, format_args!("{error}"))
}

/// Loads a GGUF file made by lxmert-quantize, within the limits that lxmert-run has by default. path is UTF-8. The weights
/// are mapped, not read: they take no memory that the operating system could not have back. Replace the file by renaming another over it; if it is shortened in place, the
/// process ends with SIGBUS, as with any map.
///
/// On success out is a new handle, to be freed with lxmert_model_free; on failure NULL.
///
/// | allocates   | the handle, answers and lists; not the weights, nor the tokenizer before the first question          |
/// |-------------|------------------------------------------------------------------------------------------------------|
/// | thread-safe | yes                                                                                                  |
/// | blocks      | while the file's header is read                                                                      |
/// | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_IO, LXMERT_INVALID_MODEL, LXMERT_OUT_OF_MEMORY; then nothing is left |
/// |             | behind                                                                                               |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_model_open(
    path: *const c_char,
    out: *mut *mut lxmert_model,
) -> lxmert_status {
    let load = || {
        // SAFETY: a string or NULL, by the header's rules.
        let path = unsafe { text("path", path) }?;
        Model::open(path).map_err(in_model)
    };
    // SAFETY: a place for a pointer or NULL, by the header's rules.
    unsafe { create(out, load) }
}

/// Loads a model from the bytes of such a file, size of them.
///
/// With copy, the bytes are the caller's again when the call returns. Without, the model reads them where they are: they must
/// stay alive and unchanged until the model and all its sessions are freed. Bytes that do not begin at a multiple of
/// LXMERT_MEMORY_ALIGNMENT are copied in either case.
///
/// On success out is a new handle, to be freed with lxmert_model_free; on failure NULL.
///
/// | allocates   | as lxmert_model_open, and all bytes if they are copied                                           |
/// |-------------|--------------------------------------------------------------------------------------------------|
/// | thread-safe | yes                                                                                              |
/// | blocks      | while the bytes are copied                                                                       |
/// | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_INVALID_MODEL, LXMERT_OUT_OF_MEMORY; then nothing is left behind |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_model_from_memory(
    bytes: *const c_void,
    size: usize,
    copy: Bool,
    out: *mut *mut lxmert_model,
) -> lxmert_status {
    let load = || {
        // SAFETY: so many bytes or NULL, by the header's rules; without `copy` they outlive the model by the same rules.
        let bytes: &'static [u8] = unsafe { arguments::slice("bytes", bytes.cast(), size) }?;
        if copy.get() { Model::from_bytes(bytes) } else { Model::from_static(bytes) }.map_err(in_model)
    };
    // SAFETY: a place for a pointer or NULL, by the header's rules.
    unsafe { create(out, load) }
}

/// Loads a model through the caller's own functions. Only the file's header is read now; sessions read the rest when they are
/// made, or in every run where weights are streamed. The struct is copied, and need not outlive the call.
///
/// On success out is a new handle, to be freed with lxmert_model_free; on failure NULL.
///
/// | allocates   | as lxmert_model_open                                                            |
/// |-------------|---------------------------------------------------------------------------------|
/// | thread-safe | yes                                                                             |
/// | blocks      | while the loader reads                                                          |
/// | fails       | LXMERT_INVALID_ARGUMENT before anything is read; LXMERT_IO if the loader fails; |
/// |             | LXMERT_INVALID_MODEL, LXMERT_OUT_OF_MEMORY; then nothing is left behind         |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_model_from_loader(
    loader: *const lxmert_loader,
    out: *mut *mut lxmert_model,
) -> lxmert_status {
    let load = || {
        // SAFETY: a struct of the size that it begins with or NULL, by the header's rules.
        let loader = unsafe { arguments::read("loader", loader) }?;
        Model::from_loader(Box::new(CallerFile::new(&loader)?)).map_err(in_model)
    };
    // SAFETY: a place for a pointer or NULL, by the header's rules.
    unsafe { create(out, load) }
}

/// Compares the header and all weights of a model with the checksums that lxmert-quantize has stored in its file. It finds what
/// disks, copies and downloads have done to the file; whoever changes a file on purpose can change these too. It reads the whole file,
/// by a loader too, a part at a time.
///
/// | allocates   | 256 KiB, and as much as the header and what it holds takes, meanwhile                      |
/// |-------------|--------------------------------------------------------------------------------------------|
/// | thread-safe | yes                                                                                        |
/// | blocks      | while the file is read                                                                     |
/// | fails       | LXMERT_INVALID_MODEL names the first tensor that is damaged; LXMERT_UNSUPPORTED if the     |
/// |             | file holds no checksums; LXMERT_IO, LXMERT_OUT_OF_MEMORY, LXMERT_INVALID_ARGUMENT          |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_model_verify(model: *const lxmert_model) -> lxmert_status {
    status(|| {
        // SAFETY: a live handle, or NULL, by the header's rules.
        let model = unsafe { Handle::<LoadedModel>::get(model) }?;
        model.model.verify().map_err(in_model)
    })
}

/// Frees a model; NULL is fine. Sessions that were made of it keep what they need, but the strings that the model has given
/// out end with it. Answers that a session gives after it keep their texts until that session is freed.
///
/// | allocates   | no                                                                         |
/// |-------------|----------------------------------------------------------------------------|
/// | thread-safe | not while another call uses the same handle                                |
/// | blocks      | no                                                                         |
/// | fails       | never; what is no live handle is left alone, and lxmert_last_error says so |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_model_free(model: *mut lxmert_model) {
    if !model.is_null() {
        // SAFETY: a handle that nothing uses any more, by the header's rules.
        let _ = status(|| unsafe { Handle::<LoadedModel>::free(model) });
    }
}

/// Tells what a model is. Only as much of info is written as its struct_size says.
///
/// | allocates   | no                      |
/// |-------------|-------------------------|
/// | thread-safe | yes                     |
/// | blocks      | no                      |
/// | fails       | LXMERT_INVALID_ARGUMENT |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_model_get_info(
    model: *const lxmert_model,
    info: *mut lxmert_model_info,
) -> lxmert_status {
    status(|| {
        // SAFETY: a struct of the size that it begins with or NULL, by the header's rules.
        let info = unsafe { Out::new("info", info) }?;
        // SAFETY: a live handle, or NULL, by the header's rules.
        let model = &unsafe { Handle::<LoadedModel>::get(model) }?.model;
        info.write(&about(model));
        Ok(())
    })
}

fn about(model: &Model) -> lxmert_model_info {
    let config = model.config();
    let grid = match model.front_end() {
        FrontEnd::Regions => None,
        FrontEnd::PatchGrid(grid) => Some(grid),
    };
    let front_end = match grid {
        None => lxmert_front_end::LXMERT_FRONT_END_REGIONS,
        Some(_) => lxmert_front_end::LXMERT_FRONT_END_PATCH_GRID,
    };
    let head = match config.head {
        Head::None => lxmert_head::LXMERT_HEAD_NONE,
        Head::PreTraining { .. } => lxmert_head::LXMERT_HEAD_PRETRAINING,
        Head::QuestionAnswering { .. } => lxmert_head::LXMERT_HEAD_QUESTION_ANSWERING,
        Head::Nlvr2 => lxmert_head::LXMERT_HEAD_NLVR2,
    };
    lxmert_model_info {
        struct_size: size_of::<lxmert_model_info>(),
        head: head as i32,
        front_end: front_end as i32,
        label_count: config.head.labels().unwrap_or(0),
        has_label_texts: model.labels().is_some().into(),
        has_tokenizer: model.has_tokenizer().into(),
        images_per_answer: config.head.images(),
        hidden_size: config.hidden_size,
        vocab_size: config.vocab_size,
        max_tokens: config.max_position_embeddings,
        max_regions: model.limits().regions,
        max_batch: model.limits().batch,
        feature_size: config.visual_feat_dim,
        box_size: config.visual_pos_dim,
        grid_rows: grid.map_or(0, |grid| grid.rows() as usize),
        grid_columns: grid.map_or(0, |grid| grid.columns() as usize),
        parameters: model.parameters(),
        file_bytes: model.file_bytes() as u64,
    }
}

/// The model's name as its file tells it, UTF-8; NULL if it tells none. Valid until the model is freed.
///
/// | allocates   | no                      |
/// |-------------|-------------------------|
/// | thread-safe | yes                     |
/// | blocks      | no                      |
/// | fails       | LXMERT_INVALID_ARGUMENT |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_model_name(
    model: *const lxmert_model,
    text: *mut *const c_char,
) -> lxmert_status {
    status(|| {
        // SAFETY: a place for a pointer or NULL, by the header's rules.
        let text = unsafe { place("text", text) }?;
        text.write(std::ptr::null());
        // SAFETY: a live handle, or NULL, by the header's rules.
        let model = unsafe { Handle::<LoadedModel>::get(model) }?;
        text.write(model.name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()));
        Ok(())
    })
}

/// The text of the answer with that number, from 0 to label_count - 1 of lxmert_model_info; UTF-8, valid until the model is
/// freed.
///
/// | allocates   | no                                                                                          |
/// |-------------|---------------------------------------------------------------------------------------------|
/// | thread-safe | yes                                                                                         |
/// | blocks      | no                                                                                          |
/// | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_UNSUPPORTED if the file holds no answers; then text is NULL |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_model_label(
    model: *const lxmert_model,
    index: usize,
    text: *mut *const c_char,
) -> lxmert_status {
    status(|| {
        // SAFETY: a place for a pointer or NULL, by the header's rules.
        let text = unsafe { place("text", text) }?;
        text.write(std::ptr::null());
        // SAFETY: a live handle, or NULL, by the header's rules.
        let model = unsafe { Handle::<LoadedModel>::get(model) }?;
        let Some(labels) = &model.labels else {
            return Err(Failure::new(
                lxmert_status::LXMERT_UNSUPPORTED,
                format_args!("the model's file holds no answers: they are known by their numbers only"),
            ));
        };
        let Some(label) = labels.get(index) else {
            return Err(Failure::argument(format_args!(
                "index is {index}, but the model has {} answers: give a lower one",
                labels.len()
            )));
        };
        text.write(label);
        Ok(())
    })
}

/// Turns a question, UTF-8, into token ids as lxmert_ask does, [CLS] and [SEP] included, for lxmert_ask_tokens and lxmert_run.
///
/// ids has room for capacity of them. count becomes the number that the question has, also if there is not room for all;
/// so a first call with NULL and 0 tells how many there will be.
///
/// | allocates   | what the tokenizer takes; the tokenizer itself in the first call for a model                       |
/// |-------------|----------------------------------------------------------------------------------------------------|
/// | thread-safe | yes                                                                                                |
/// | blocks      | while the first call for a model makes the tokenizer                                               |
/// | fails       | LXMERT_INVALID_ARGUMENT (a question without words is one), LXMERT_UNSUPPORTED without a tokenizer, |
/// |             | LXMERT_INVALID_MODEL for one of no use; count is then 0. LXMERT_LIMIT if there are more than       |
/// |             | capacity: ids is then unchanged                                                                    |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_model_tokenize(
    model: *const lxmert_model,
    question: *const c_char,
    ids: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> lxmert_status {
    status(|| {
        // SAFETY: a place for a number or NULL, by the header's rules.
        let count = unsafe { arguments::count("count", count) }?;
        // SAFETY: a live handle, or NULL, by the header's rules.
        let model = unsafe { Handle::<LoadedModel>::get(model) }?;
        // SAFETY: a string or NULL, by the header's rules.
        let question = unsafe { text("question", question) }?;
        // SAFETY: room for so many ids, by the header's rules.
        let ids = unsafe { places("ids", ids, capacity) }?;
        let found = made(|| Ok(model.model.tokenizer()?.encode(question).map_err(Error::from)?))?;
        *count = found.len();
        if found.len() > capacity {
            return Err(Failure::new(
                lxmert_status::LXMERT_LIMIT,
                format_args!(
                    "the question has {} tokens, but capacity is {capacity}: give more room",
                    found.len()
                ),
            ));
        }
        for (place, id) in ids.iter_mut().zip(found) {
            place.write(id);
        }
        Ok(())
    })
}
