//! Running a session: images, questions, raw tensors, outputs.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::arguments::{self, Out, Versioned, opt_slice, places, slice, text};
use super::session::{lxmert_session, with_session};
use super::strings::CStrings;
use super::{Failure, lxmert_status};
use crate::vision::Pixels;
use crate::{Answer, Answers, Error, Inputs, Output, Session, Text};

/// One answer and how it scored.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_answer {
    /// The answer's number: its row in the answer head.
    pub label: usize,
    /// The answer's text, UTF-8; NULL if the model's file holds no answers. Valid until the session is freed.
    pub text: *const c_char,
    /// The raw score.
    pub logit: f32,
    /// The logit's share among all answers, after softmax: a probability for a model that was trained with cross-entropy, a
    /// ranking for others.
    pub softmax: f32,
    /// The logistic function of the logit: the expected VQA score for a model that was trained with binary cross-entropy over soft
    /// labels, as the VQA and GQA checkpoints were.
    pub sigmoid: f32,
}

/// A batch of raw tensors, without gaps and with the slowest axis first. B is batch, L tokens, O regions; the other sizes are
/// those of lxmert_model_info.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_inputs {
    /// sizeof(lxmert_inputs): LXMERT_INPUTS_INIT sets it.
    pub struct_size: usize,
    /// Pairs of a question and an image, B.
    pub batch: usize,
    /// Tokens of every question, padding included, L.
    pub tokens: usize,
    /// Regions of every image, padding included, O.
    pub regions: usize,
    /// Token ids, [B, L]. Exactly one of these and inputs_embeds is given.
    pub input_ids: *const u32,
    /// Embeddings in place of the word embedding's rows, [B, L, hidden_size], for a session with inputs_embeds in its options.
    pub inputs_embeds: *const f32,
    /// 1 to keep a token and 0 to drop it, [B, L]. NULL keeps all.
    pub attention_mask: *const f32,
    /// Token types, [B, L]. NULL for zeros.
    pub token_type_ids: *const u32,
    /// Features of the regions, [B, O, feature_size].
    pub visual_feats: *const f32,
    /// Boxes of the regions, [B, O, box_size]: x1, y1, x2, y2 of the corners, divided by the image's width (x) and height (y).
    pub visual_pos: *const f32,
    /// 1 to keep a region and 0 to drop it, [B, O]. NULL keeps all.
    pub visual_attention_mask: *const f32,
}

// SAFETY: `repr(C)` with the size first; numbers and pointers, all valid as zeros.
unsafe impl Versioned for lxmert_inputs {
    const NAME: &'static str = "lxmert_inputs";
    const FIRST: usize = std::mem::offset_of!(lxmert_inputs, visual_attention_mask);
}

/// An output of a run, in the session's memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_tensor {
    /// sizeof(lxmert_tensor): LXMERT_TENSOR_INIT sets it.
    pub struct_size: usize,
    /// The numbers, without gaps.
    pub data: *const f32,
    /// How many axes it has, at most 4.
    pub rank: usize,
    /// Their sizes, the slowest axis first as in PyTorch; 0 beyond rank.
    pub shape: [usize; 4],
}

// SAFETY: `repr(C)` with the size first; numbers and a pointer.
unsafe impl Versioned for lxmert_tensor {
    const NAME: &'static str = "lxmert_tensor";
    const FIRST: usize = size_of::<lxmert_tensor>();
}

/// Encodes an image from ready features, to be asked any number of questions.
///
/// features are [regions, feature_size] and boxes [regions, box_size] with the sizes of lxmert_model_info; all numbers are
/// finite. The first four of a box are x1, y1, x2, y2 of its corners, divided by the image's width (x) and height (y). Both
/// are read during the call only. If it refuses its arguments, the image before stays encoded; if it gives up while it
/// computes, none is.
///
/// | allocates   | no on the project's own kernels; with the lowering ggml, what its operations take                   |
/// |-------------|-----------------------------------------------------------------------------------------------------|
/// | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                          |
/// | blocks      | while it computes; where weights are streamed from a loader, also while another session reads       |
/// | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_LIMIT, LXMERT_CANCELLED, LXMERT_TIME_LIMIT, LXMERT_IO where weights |
/// |             | are streamed, LXMERT_BUSY                                                                           |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_encode_regions(
    session: *mut lxmert_session,
    features: *const f32,
    boxes: *const f32,
    regions: usize,
) -> lxmert_status {
    let body = |session: &mut Session, _: Option<&CStrings>| {
        session.check_sizes(1, 1, regions)?;
        let config = session.model().config();
        let (feature_len, box_len) = (config.visual_feat_dim, config.visual_pos_dim);
        // SAFETY: so many numbers or NULL, by the header's rules; the limits of sessions bound the product.
        let features = unsafe { slice("features", features, regions * feature_len) }?;
        // SAFETY: as for the features.
        let boxes = unsafe { slice("boxes", boxes, regions * box_len) }?;
        Ok(session.encode_regions(regions, features, boxes)?)
    };
    // SAFETY: a live handle, or NULL, by the header's rules.
    unsafe { with_session(session, body) }
}

/// Encodes an image from its pixels, for a model with a patch grid: 8-bit red, green and blue, row by row from the top left.
/// stride is the distance of two rows in bytes, 0 for 3 * width. Images of another size than the grid's are scaled to it. rgb
/// is read during the call only. Failures leave what lxmert_encode_regions tells.
///
/// | allocates   | as lxmert_encode_regions                                                                |
/// |-------------|-----------------------------------------------------------------------------------------|
/// | thread-safe | one call on a session at a time; others return LXMERT_BUSY                              |
/// | blocks      | as lxmert_encode_regions                                                                |
/// | fails       | as lxmert_encode_regions; LXMERT_UNSUPPORTED for a model that only takes ready features |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_encode_pixels(
    session: *mut lxmert_session,
    rgb: *const u8,
    width: u32,
    height: u32,
    stride: usize,
) -> lxmert_status {
    let body = |session: &mut Session, _: Option<&CStrings>| {
        let row = width as usize * 3;
        let stride = if stride == 0 { row } else { stride };
        // What saturates is refused as no size of an array.
        let bytes = (height.saturating_sub(1) as usize).saturating_mul(stride).saturating_add(row);
        // SAFETY: so many bytes or NULL, by the header's rules.
        let rgb = unsafe { slice("rgb", rgb, bytes) }?;
        let pixels = Pixels::new(rgb, width, height, stride).map_err(Error::from)?;
        Ok(session.encode_pixels(&pixels)?)
    };
    // SAFETY: a live handle, or NULL, by the header's rules.
    unsafe { with_session(session, body) }
}

/// Asks a question, UTF-8, about the image that was encoded last.
///
/// answers has room for capacity of them and gets the best, best first; of equal scores the lower number comes first. count
/// becomes how many there are: capacity, or all answers of the model if they are fewer. With a capacity of 0, answers may be
/// NULL, and the scores are read with lxmert_output.
///
/// | allocates   | as lxmert_ask_tokens, and what the tokenizer takes; the tokenizer itself in the first call for a   |
/// |-------------|----------------------------------------------------------------------------------------------------|
/// |             | model                                                                                              |
/// | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                         |
/// | blocks      | as lxmert_ask_tokens, and while the first call for a model makes the tokenizer                     |
/// | fails       | as lxmert_ask_tokens; LXMERT_UNSUPPORTED also without a tokenizer, LXMERT_INVALID_MODEL for one of |
/// |             | no use                                                                                             |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_ask(
    session: *mut lxmert_session,
    question: *const c_char,
    answers: *mut lxmert_answer,
    capacity: usize,
    count: *mut usize,
) -> lxmert_status {
    // SAFETY: a place for a number or NULL, by the header's rules.
    let count = unsafe { arguments::count("count", count) };
    let body = |session: &mut Session, labels: Option<&CStrings>| {
        // SAFETY: places for the answers or NULL, by the header's rules.
        let room = unsafe { Room::new(session, answers, capacity, count?) }?;
        // SAFETY: a string or NULL, by the header's rules.
        let question = unsafe { text("question", question) }?;
        room.fill(session.ask(question)?, labels);
        Ok(())
    };
    // SAFETY: a live handle, or NULL, by the header's rules.
    unsafe { with_session(session, body) }
}

/// Asks a question that is token ids already, id_count of them, [CLS] and [SEP] included. All else is as with lxmert_ask.
///
/// | allocates   | as lxmert_encode_regions                                                                             |
/// |-------------|------------------------------------------------------------------------------------------------------|
/// | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                           |
/// | blocks      | as lxmert_encode_regions                                                                             |
/// | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_LIMIT for more tokens than the session was made for,                 |
/// |             | LXMERT_UNSUPPORTED where answers are about two images, LXMERT_NO_IMAGE, LXMERT_NOT_REQUESTED if the  |
/// |             | session computes no answers, LXMERT_NOT_FINITE, LXMERT_CANCELLED, LXMERT_TIME_LIMIT, LXMERT_IO where |
/// |             | weights are streamed, LXMERT_BUSY; count is then 0                                                   |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_ask_tokens(
    session: *mut lxmert_session,
    ids: *const u32,
    id_count: usize,
    answers: *mut lxmert_answer,
    capacity: usize,
    count: *mut usize,
) -> lxmert_status {
    // SAFETY: a place for a number or NULL, by the header's rules.
    let count = unsafe { arguments::count("count", count) };
    let body = |session: &mut Session, labels: Option<&CStrings>| {
        // SAFETY: places for the answers or NULL, by the header's rules.
        let room = unsafe { Room::new(session, answers, capacity, count?) }?;
        session.check_sizes(1, id_count, 1)?;
        // SAFETY: so many ids or NULL, by the header's rules.
        let ids = unsafe { slice("ids", ids, id_count) }?;
        room.fill(session.ask_tokens(ids)?, labels);
        Ok(())
    };
    // SAFETY: a live handle, or NULL, by the header's rules.
    unsafe { with_session(session, body) }
}

/// Where a caller wants answers.
struct Room<'a> {
    answers: &'a mut [MaybeUninit<lxmert_answer>],
    count: &'a mut usize,
}

impl<'a> Room<'a> {
    /// # Safety
    /// The pointer is NULL or points to room for `capacity` answers.
    unsafe fn new(
        session: &Session,
        answers: *mut lxmert_answer,
        capacity: usize,
        count: &'a mut usize,
    ) -> Result<Self, Failure> {
        let all = session.model().config().head.labels().unwrap_or(0);
        // SAFETY: this function's contract.
        let answers = unsafe { places("answers", answers, capacity.min(all)) }?;
        Ok(Room { answers, count })
    }

    fn fill(self, found: Answers<'_>, labels: Option<&CStrings>) {
        let make = |answer: Answer<'_>| {
            MaybeUninit::new(lxmert_answer {
                label: answer.class,
                text: labels.and_then(|labels| labels.get(answer.class)).unwrap_or(std::ptr::null()),
                logit: answer.logit,
                softmax: answer.softmax,
                sigmoid: answer.sigmoid,
            })
        };
        // SAFETY: only asked of places that were filled.
        let logit = |place: &MaybeUninit<lxmert_answer>| unsafe { place.assume_init_ref() }.logit;
        *self.count = found.top_with(self.answers, make, logit);
    }
}

/// Runs the whole model on a batch of raw tensors, which are read during the call only; lxmert_output gives the results. After
/// it no image counts as encoded, unless the batch was of one.
///
/// | allocates   | as lxmert_encode_regions                                                                             |
/// |-------------|------------------------------------------------------------------------------------------------------|
/// | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                           |
/// | blocks      | as lxmert_encode_regions                                                                             |
/// | fails       | LXMERT_INVALID_ARGUMENT names the tensor that the model cannot take; LXMERT_LIMIT, LXMERT_CANCELLED, |
/// |             | LXMERT_TIME_LIMIT, LXMERT_IO where weights are streamed, LXMERT_BUSY                                 |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_run(
    session: *mut lxmert_session,
    inputs: *const lxmert_inputs,
) -> lxmert_status {
    let body = |session: &mut Session, _: Option<&CStrings>| {
        // SAFETY: a struct of the size that it begins with or NULL, by the header's rules.
        let given = unsafe { arguments::read("inputs", inputs) }?;
        session.check_sizes(given.batch, given.tokens, given.regions)?;
        // SAFETY: tensors of the shapes that the header tells, by its rules.
        let inputs = unsafe { tensors(&given, session) }?;
        Ok(session.run(&inputs)?)
    };
    // SAFETY: a live handle, or NULL, by the header's rules.
    unsafe { with_session(session, body) }
}

/// # Safety
/// Every tensor is NULL or has the shape that the header tells.
unsafe fn tensors<'a>(given: &lxmert_inputs, session: &Session) -> Result<Inputs<'a>, Failure> {
    let config = session.model().config();
    // The limits of sessions bound these products.
    let (tokens, regions) = (given.batch * given.tokens, given.batch * given.regions);
    let text = match (given.input_ids.is_null(), given.inputs_embeds.is_null()) {
        // SAFETY: this function's contract.
        (false, true) => Text::Ids(unsafe { slice("inputs->input_ids", given.input_ids, tokens) }?),
        (true, false) => {
            let count = tokens * config.hidden_size;
            // SAFETY: this function's contract.
            Text::Embeddings(unsafe { slice("inputs->inputs_embeds", given.inputs_embeds, count) }?)
        }
        (given, _) => {
            return Err(Failure::argument(format_args!(
                "inputs has {} of input_ids and inputs_embeds: give one",
                if given { "none" } else { "both" }
            )));
        }
    };
    // SAFETY: this function's contract.
    unsafe {
        Ok(Inputs {
            batch: given.batch,
            tokens: given.tokens,
            regions: given.regions,
            text,
            attention_mask: opt_slice("inputs->attention_mask", given.attention_mask, tokens)?,
            token_type_ids: opt_slice("inputs->token_type_ids", given.token_type_ids, tokens)?,
            visual_feats: slice(
                "inputs->visual_feats",
                given.visual_feats,
                regions * config.visual_feat_dim,
            )?,
            visual_pos: slice("inputs->visual_pos", given.visual_pos, regions * config.visual_pos_dim)?,
            visual_attention_mask: opt_slice(
                "inputs->visual_attention_mask",
                given.visual_attention_mask,
                regions,
            )?,
        })
    }
}

/// Finds an output of the last run under its Hugging Face name: language_output, vision_output, pooled_output,
/// prediction_logits, cross_relationship_score, question_answering_score, visual_obj_score, visual_attr_score,
/// visual_feat_score; or one of a list by its number from 0, as in "language_hidden_states.3": language_hidden_states,
/// vision_hidden_states, language_attentions, vision_attentions, cross_encoder_attentions.
///
/// The numbers are the session's, and valid until the next call that encodes, asks or runs, or frees it.
///
/// | allocates   | no, but for the error of a name that is no output's                                                 |
/// |-------------|-----------------------------------------------------------------------------------------------------|
/// | thread-safe | one call on a session at a time; others return LXMERT_BUSY                                          |
/// | blocks      | no                                                                                                  |
/// | fails       | LXMERT_INVALID_ARGUMENT for no output's name, LXMERT_NOT_REQUESTED for one that the options did not |
/// |             | name or before the first run, LXMERT_BUSY                                                           |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_output(
    session: *const lxmert_session,
    name: *const c_char,
    tensor: *mut lxmert_tensor,
) -> lxmert_status {
    // SAFETY: a struct of the size that it begins with or NULL, by the header's rules.
    let out = unsafe { Out::new("tensor", tensor) };
    let body = |session: &mut Session, _: Option<&CStrings>| {
        let out = out?;
        // SAFETY: a string or NULL, by the header's rules.
        let output: Output = unsafe { text("name", name) }?.parse()?;
        let found = session.output(output)?;
        let mut shape = [0; 4];
        for (size, found) in shape.iter_mut().zip(&*found.shape) {
            *size = *found;
        }
        out.write(&lxmert_tensor {
            struct_size: size_of::<lxmert_tensor>(),
            data: found.data.as_ptr(),
            rank: found.shape.len(),
            shape,
        });
        Ok(())
    };
    // SAFETY: a live handle, or NULL, by the header's rules.
    unsafe { with_session(session, body) }
}
