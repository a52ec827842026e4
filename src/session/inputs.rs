//! Raw tensors, checked at the door: behind it every size, index and number is one that the graph can take.

use super::SessionOptions;
use crate::Error;
use crate::model::{Config, Output};
use crate::vision::{Regions, check_boxes};

/// A batch of raw tensors for [`Session::run`](super::Session::run), all with the slowest axis first.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Pairs of a question and an image, B.
    pub batch: usize,
    /// Tokens of every question, padding included, L.
    pub tokens: usize,
    /// Regions of every image, padding included, O.
    pub regions: usize,
    /// The questions.
    pub text: Text<'a>,
    /// 1 to keep a token and 0 to drop it, `[B, L]`; all are kept without it.
    pub attention_mask: Option<&'a [f32]>,
    /// Token types, `[B, L]`; zeros without it.
    pub token_type_ids: Option<&'a [u32]>,
    /// Features of the regions, `[B, O, visual_feat_dim]`.
    pub visual_feats: &'a [f32],
    /// Boxes of the regions, `[B, O, visual_pos_dim]`: x1, y1, x2, y2 over the image's width and height.
    pub visual_pos: &'a [f32],
    /// 1 to keep a region and 0 to drop it, `[B, O]`; all are kept without it.
    pub visual_attention_mask: Option<&'a [f32]>,
}

/// The words of [`Inputs`].
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    /// Token ids, `[B, L]`.
    Ids(&'a [u32]),
    /// Embeddings in place of the word embedding's rows, `[B, L, hidden_size]`.
    Embeddings(&'a [f32]),
}

/// Images that the graph can take.
pub(super) struct ImageInput<'a> {
    pub batch: usize,
    pub regions: usize,
    pub features: &'a [f32],
    pub boxes: &'a [f32],
    pub mask: Option<&'a [f32]>,
}

/// Questions that the graph can take.
pub(super) struct QuestionInput<'a> {
    pub batch: usize,
    pub tokens: usize,
    pub text: Text<'a>,
    pub token_types: Option<&'a [u32]>,
    pub mask: Option<&'a [f32]>,
}

impl<'a> ImageInput<'a> {
    pub fn of_regions(
        regions: &'a Regions,
        config: &Config,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let widths = [
            ("visual_feats", regions.feature_len(), config.visual_feat_dim),
            ("visual_pos", regions.box_len(), config.visual_pos_dim),
        ];
        for (name, found, expected) in widths {
            if found != expected {
                return Err(input(name, format!("{expected} values for every region"), found.to_string()));
            }
        }
        limit_regions(regions.len(), options)?;
        Ok(ImageInput {
            batch: 1,
            regions: regions.len(),
            features: regions.features(),
            boxes: regions.boxes(),
            mask: None,
        })
    }

    pub fn of_slices(
        regions: usize,
        features: &'a [f32],
        boxes: &'a [f32],
        config: &Config,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        limit_regions(regions, options)?;
        numbers("visual_feats", features, &[regions, config.visual_feat_dim])?;
        numbers("visual_pos", boxes, &[regions, config.visual_pos_dim])?;
        check_boxes(boxes, config.visual_pos_dim)?;
        Ok(ImageInput { batch: 1, regions, features, boxes, mask: None })
    }

    pub fn of_tensors(inputs: &Inputs<'a>, config: &Config, options: &SessionOptions) -> Result<Self, Error> {
        let Inputs { batch, regions, .. } = *inputs;
        limit_batch(batch, options)?;
        limit_regions(regions, options)?;
        numbers("visual_feats", inputs.visual_feats, &[batch, regions, config.visual_feat_dim])?;
        numbers("visual_pos", inputs.visual_pos, &[batch, regions, config.visual_pos_dim])?;
        check_boxes(inputs.visual_pos, config.visual_pos_dim)?;
        mask("visual_attention_mask", inputs.visual_attention_mask, [batch, regions])?;
        Ok(ImageInput {
            batch,
            regions,
            features: inputs.visual_feats,
            boxes: inputs.visual_pos,
            mask: inputs.visual_attention_mask,
        })
    }
}

impl<'a> QuestionInput<'a> {
    pub fn of_tokens(ids: &'a [u32], config: &Config, options: &SessionOptions) -> Result<Self, Error> {
        limit_tokens(ids.len(), config, options)?;
        indices("input_ids", ids, config.vocab_size)?;
        Ok(QuestionInput { batch: 1, tokens: ids.len(), text: Text::Ids(ids), token_types: None, mask: None })
    }

    pub fn of_tensors(inputs: &Inputs<'a>, config: &Config, options: &SessionOptions) -> Result<Self, Error> {
        let Inputs { batch, tokens, .. } = *inputs;
        limit_batch(batch, options)?;
        limit_tokens(tokens, config, options)?;
        match inputs.text {
            Text::Ids(ids) => {
                length("input_ids", ids.len(), &[batch, tokens])?;
                indices("input_ids", ids, config.vocab_size)?;
            }
            Text::Embeddings(_) if !options.inputs_embeds => {
                let expected = "token ids, or inputs_embeds set in the session's options".to_owned();
                return Err(input("inputs_embeds", expected, "embeddings".to_owned()));
            }
            Text::Embeddings(embeddings) => {
                numbers("inputs_embeds", embeddings, &[batch, tokens, config.hidden_size])?;
            }
        }
        if let Some(types) = inputs.token_type_ids {
            length("token_type_ids", types.len(), &[batch, tokens])?;
            indices("token_type_ids", types, config.type_vocab_size)?;
        }
        mask("attention_mask", inputs.attention_mask, [batch, tokens])?;
        Ok(QuestionInput {
            batch,
            tokens,
            text: inputs.text,
            token_types: inputs.token_type_ids,
            mask: inputs.attention_mask,
        })
    }
}

/// Demands as many images for every answer as the head reads.
pub(super) fn check_images(batch: usize, config: &Config, options: &SessionOptions) -> Result<(), Error> {
    let images = config.head.images();
    if batch.is_multiple_of(images) || !options.outputs.contains(&Output::QuestionAnsweringScore) {
        return Ok(());
    }
    let expected = format!("a batch of {images} rows for each answer, one for each image");
    Err(input("visual_feats", expected, format!("{batch} rows")))
}

/// How many of `len` keys a run must compute: those after the last that any element keeps are dropped, which changes
/// nothing but the order of additions.
///
/// All stay where somebody asked for a result with a row per key, and where an element keeps none at all: it then attends
/// to every key alike, the padding included.
pub(super) fn used_keys(mask: Option<&[f32]>, len: usize, rows_are_wanted: bool) -> usize {
    let Some(mask) = mask.filter(|_| !rows_are_wanted) else { return len };
    let last = mask.chunks_exact(len).map(|row| row.iter().rposition(|keep| *keep != 0.0));
    last.map(|last| last.map_or(len, |last| last + 1)).max().unwrap_or(len)
}

/// Refuses what a session is too small for.
pub(super) fn check_sizes(
    batch: usize,
    tokens: usize,
    regions: usize,
    config: &Config,
    options: &SessionOptions,
) -> Result<(), Error> {
    limit_batch(batch, options)?;
    limit_tokens(tokens, config, options)?;
    limit_regions(regions, options)
}

fn limit_batch(found: usize, options: &SessionOptions) -> Result<(), Error> {
    let remedy = "raise the session's max_batch or run smaller batches";
    limit("pairs in a batch", found, options.max_batch, remedy)
}

pub(super) fn limit_regions(found: usize, options: &SessionOptions) -> Result<(), Error> {
    limit("regions", found, options.max_regions, "raise the session's max_regions or keep the best regions")
}

fn limit_tokens(found: usize, config: &Config, options: &SessionOptions) -> Result<(), Error> {
    limit("tokens", found, config.max_position_embeddings, SHORTEN)?;
    limit("tokens", found, options.max_tokens, "raise the session's max_tokens or shorten the text")
}

/// What to do about more tokens than the model has positions.
pub(super) const SHORTEN: &str = "the model has no more positions: shorten the text";

/// Demands 1 to `limit` of something.
pub(super) fn limit(
    what: &'static str,
    found: usize,
    limit: usize,
    remedy: &'static str,
) -> Result<(), Error> {
    match found {
        0 => Err(input(what, format!("1 to {limit}"), "0".to_owned())),
        _ if found > limit => Err(Error::Limit { what, found, limit, remedy }),
        _ => Ok(()),
    }
}

fn input(name: &str, expected: String, found: String) -> Error {
    Error::Input { name: name.to_owned(), expected, found }
}

fn length(name: &str, found: usize, shape: &[usize]) -> Result<(), Error> {
    if found == shape.iter().product::<usize>() {
        return Ok(());
    }
    Err(input(name, format!("values for shape {shape:?}"), format!("{found} values")))
}

fn numbers(name: &str, values: &[f32], shape: &[usize]) -> Result<(), Error> {
    length(name, values.len(), shape)?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(input(name, "finite numbers".to_owned(), format!("{} at index {at}", values[at]))),
    }
}

fn indices(name: &str, values: &[u32], rows: usize) -> Result<(), Error> {
    match values.iter().position(|value| *value as usize >= rows) {
        None => Ok(()),
        Some(at) => {
            Err(input(name, format!("ids from 0 to {}", rows - 1), format!("{} at index {at}", values[at])))
        }
    }
}

fn mask(name: &str, mask: Option<&[f32]>, shape: [usize; 2]) -> Result<(), Error> {
    let Some(mask) = mask else { return Ok(()) };
    length(name, mask.len(), &shape)?;
    match mask.iter().position(|keep| !(0.0..=1.0).contains(keep)) {
        None => Ok(()),
        Some(at) => {
            Err(input(name, "1 to keep and 0 to drop".to_owned(), format!("{} at index {at}", mask[at])))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_padding_that_no_element_keeps() {
        let mask = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0];
        assert_eq!(used_keys(Some(&mask), 5, false), 3);
        assert_eq!(used_keys(Some(&mask), 5, true), 5);
        assert_eq!(used_keys(None, 5, false), 5);
    }

    #[test]
    fn keeps_everything_beside_an_element_without_keys() {
        assert_eq!(used_keys(Some(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 3, false), 3);
    }
}
