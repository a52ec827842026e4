//! BERT's tokenizer.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{Model as _, NormalizedString, Normalizer as _};

use super::json::{self, Normalizer};
use super::{AddedToken, BertOptions, Error};
use crate::Limits;
use crate::limits::raise;

/// The search for the pieces of one word takes time with the third power of its length, so a file may
/// not raise BERT's limit of 100 characters by much.
const MAX_WORD_CHARS: usize = 256;

/// Turns questions into token ids as Hugging Face's `BertTokenizer` does.
///
/// It never changes once built, so one may be used from several threads.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
    special: SpecialIds,
    cls: u32,
    sep: u32,
    /// The longest question that it takes.
    question_bytes: usize,
}

/// Ids of the pieces with a task of their own; `None` where the vocabulary has no such piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Stands for a word that the vocabulary cannot spell.
    pub unk: Option<u32>,
    /// Ends a question.
    pub sep: Option<u32>,
    /// Opens a question.
    pub cls: Option<u32>,
    /// Fills up a batch.
    pub pad: Option<u32>,
    /// Hides a word that the model is to guess.
    pub mask: Option<u32>,
}

/// A question as token ids, possibly cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// `[CLS]`, the pieces of the question, `[SEP]`.
    pub ids: Vec<u32>,
    /// How many pieces of the question were left out to keep to the limit.
    pub dropped: usize,
}

/// What both kinds of source, `tokenizer.json` and vocabulary, boil down to. Nothing is checked yet.
pub(super) struct Parts {
    pub vocab: HashMap<String, u32>,
    pub unk_token: String,
    pub max_word_chars: usize,
    pub normalizer: Option<Normalizer>,
    pub cls: Piece,
    pub sep: Piece,
    pub added_tokens: Vec<AddedToken>,
}

pub(super) struct Piece {
    pub text: String,
    pub id: u32,
}

impl Tokenizer {
    /// Builds a tokenizer from the text of a `tokenizer.json`.
    ///
    /// Its `truncation` and `padding` sections are switched off: the length of a question is the caller's
    /// decision.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the text is longer than [`Limits::string_bytes`], does not
    /// parse, or describes anything but BERT's pipeline: `BertNormalizer` or none, `BertPreTokenizer`,
    /// `WordPiece` with `##`, and one token before and one after the text.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        Self::from_json_within(json, &Limits::DEFAULT)
    }

    /// As [`from_json`](Self::from_json), within other limits than the default ones.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_json_within(json: &str, limits: &Limits) -> Result<Self, Error> {
        let limits = limits.in_range();
        Self::build(json::parse(json, &limits)?, None, &limits)
    }

    /// Builds a tokenizer from a BERT vocabulary, the lines of a `vocab.txt` in order.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are more than [`Limits::vocabulary_pieces`], a piece occurs twice, the unknown,
    /// `[CLS]` or `[SEP]` token is not among them, or an added token contradicts the vocabulary.
    pub fn from_vocab(pieces: &[String], options: &BertOptions) -> Result<Self, Error> {
        Self::from_vocab_within(pieces, options, &Limits::DEFAULT)
    }

    /// As [`from_vocab`](Self::from_vocab), within other limits than the default ones.
    ///
    /// # Errors
    /// As [`from_vocab`](Self::from_vocab).
    pub fn from_vocab_within(
        pieces: &[String],
        options: &BertOptions,
        limits: &Limits,
    ) -> Result<Self, Error> {
        Self::from_pieces(pieces.to_vec(), options, &limits.in_range())
    }

    /// As [`from_vocab_within`](Self::from_vocab_within), of pieces that are not needed any more.
    pub(super) fn from_pieces(
        pieces: Vec<String>,
        options: &BertOptions,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let (count, most) = (pieces.len(), limits.vocabulary_pieces);
        if count > most {
            let raise = raise!(vocabulary_pieces);
            return Err(Error::invalid(format!("{count} pieces, more than {most} ({raise})")));
        }
        let mut vocab = HashMap::with_capacity(pieces.len());
        for (id, piece) in (0u32..).zip(pieces) {
            match vocab.entry(piece) {
                Entry::Vacant(place) => place.insert(id),
                Entry::Occupied(first) => {
                    let (piece, first) = (first.key(), first.get());
                    return Err(Error::invalid(format!("piece {id} is {piece:?}, and so is piece {first}")));
                }
            };
        }
        let required = |name: &str, text: &String| match vocab.get(text) {
            Some(&id) => Ok(Piece { text: text.clone(), id }),
            None => Err(Error::invalid(format!("{name} is {text:?}, which is not in the vocabulary"))),
        };
        let cls = required("cls_token", &options.cls_token)?;
        let sep = required("sep_token", &options.sep_token)?;
        required("unk_token", &options.unk_token)?;

        let mut added_tokens = options.added_tokens.clone();
        for text in options.special_tokens() {
            if let Some(&id) = vocab.get(text)
                && !text.is_empty()
                && added_tokens.iter().all(|token| token.content != *text)
            {
                added_tokens.push(AddedToken::special(id, text));
            }
        }
        let parts = Parts {
            vocab,
            unk_token: options.unk_token.clone(),
            max_word_chars: 100,
            normalizer: Some(Normalizer {
                clean_text: true,
                handle_chinese_chars: options.tokenize_chinese_chars,
                strip_accents: options.strip_accents,
                lowercase: options.do_lower_case,
            }),
            cls,
            sep,
            added_tokens,
        };
        Self::build(parts, Some((&options.pad_token, &options.mask_token)), limits)
    }

    /// Checks the parts and builds the pipeline. `names` are the texts of the padding and masking tokens
    /// where the source tells them; a `tokenizer.json` does not, and then they are BERT's.
    fn build(parts: Parts, names: Option<(&str, &str)>, limits: &Limits) -> Result<Self, Error> {
        let vocab_size = check_ids(&parts, limits)?;
        let Some(&unk) = parts.vocab.get(&parts.unk_token) else {
            return Err(Error::invalid(format!(
                "the unknown token {:?} is not in the vocabulary",
                parts.unk_token
            )));
        };
        for Piece { text, id } in [&parts.cls, &parts.sep] {
            let mut added = parts.added_tokens.iter();
            if parts.vocab.get(text) != Some(id) && !added.any(|t| (&t.content, t.id) == (text, *id)) {
                return Err(Error::invalid(format!(
                    "{text:?} has id {id} around the text, but not in the vocabulary"
                )));
            }
        }
        if !(1..=MAX_WORD_CHARS).contains(&parts.max_word_chars) {
            return Err(Error::invalid(format!(
                "max_input_chars_per_word is {}, not between 1 and {MAX_WORD_CHARS}",
                parts.max_word_chars
            )));
        }

        let (cls, sep) = (parts.cls.id, parts.sep.id);
        let (pad_text, mask_text) = names.unwrap_or(("[PAD]", "[MASK]"));
        let inner = pipeline(parts)?;
        let special = SpecialIds {
            unk: Some(unk),
            sep: Some(sep),
            cls: Some(cls),
            pad: inner.token_to_id(pad_text),
            mask: inner.token_to_id(mask_text),
        };
        Ok(Self { inner, vocab_size, special, cls, sep, question_bytes: limits.question_bytes })
    }

    /// The tokenizer as the text of a `tokenizer.json`, which [`from_json`](Self::from_json) and Hugging
    /// Face's libraries read. The same tokenizer gives the same text each time.
    ///
    /// # Errors
    /// [`Error::Failed`] if the text could not be written.
    pub fn to_json(&self) -> Result<String, Error> {
        self.inner.to_string(false).map_err(failed)
    }

    /// Rows that an embedding table needs for every id: one more than the highest, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The pieces by id, added tokens included. An id without a piece has the text `[PADid]`, which no
    /// question can contain as one word.
    pub fn pieces(&self) -> Vec<String> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        (0..self.vocab_size as u32)
            .map(|id| {
                let added = added.get(&id).map(|token| token.content.clone());
                let piece = added.or_else(|| self.inner.get_model().id_to_token(id));
                piece.unwrap_or_else(|| format!("[PAD{id}]"))
            })
            .collect()
    }

    /// Ids of the pieces with a task of their own.
    pub fn special_ids(&self) -> SpecialIds {
        self.special
    }

    /// Token ids of a question: `[CLS]`, its pieces, `[SEP]`. Nothing is cut off or filled up.
    ///
    /// # Errors
    /// [`Error::EmptyQuestion`] if the question has no piece of its own, [`Error::TooLong`] if it is longer
    /// than [`Limits::question_bytes`].
    pub fn encode(&self, question: &str) -> Result<Vec<u32>, Error> {
        if question.len() > self.question_bytes {
            return Err(Error::TooLong { bytes: question.len(), limit: self.question_bytes });
        }
        let encoding = self.inner.encode_fast(question, false).map_err(failed)?;
        let words = encoding.get_ids();
        if words.is_empty() {
            return Err(Error::EmptyQuestion);
        }
        let mut ids = Vec::with_capacity(words.len() + 2);
        ids.push(self.cls);
        ids.extend_from_slice(words);
        ids.push(self.sep);
        Ok(ids)
    }

    /// Token ids of a question, at most `limit` of them: what is too much is dropped from the end of the
    /// question, and `[SEP]` still follows.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode), and [`Error::LimitTooSmall`] for a limit below 3.
    pub fn encode_truncated(&self, question: &str, limit: usize) -> Result<Encoded, Error> {
        if limit < 3 {
            return Err(Error::LimitTooSmall { limit });
        }
        let mut ids = self.encode(question)?;
        let dropped = ids.len().saturating_sub(limit);
        if dropped > 0 {
            ids.truncate(limit - 1);
            ids.push(self.sep);
        }
        Ok(Encoded { ids, dropped })
    }
}

/// One more than the highest id, once it is certain that no two pieces share an id.
fn check_ids(parts: &Parts, limits: &Limits) -> Result<usize, Error> {
    let vocab = parts.vocab.iter().map(|(text, &id)| (text, id));
    let added = parts.added_tokens.iter().map(|t| (&t.content, t.id));

    let highest = vocab.clone().chain(added.clone()).map(|(_, id)| id).max();
    let Some(highest) = highest.map(|id| id as usize) else {
        return Err(Error::invalid("the vocabulary is empty"));
    };
    let most = limits.vocabulary_pieces;
    if highest >= most {
        let raise = raise!(vocabulary_pieces);
        return Err(Error::invalid(format!("id {highest} is too high; ids end below {most} ({raise})")));
    }
    let mut pieces: Vec<Option<&String>> = vec![None; highest + 1];
    for (text, id) in vocab.chain(added) {
        match &mut pieces[id as usize] {
            Some(other) if *other != text => {
                return Err(Error::invalid(format!("{text:?} and {other:?} both have id {id}")));
            }
            piece => *piece = Some(text),
        }
    }
    Ok(pieces.len())
}

fn pipeline(parts: Parts) -> Result<tokenizers::Tokenizer, Error> {
    let invalid =
        |what: &str, error: &dyn std::fmt::Display| Error::invalid(format!("{what}: {}", one_line(error)));
    // The builder takes only the library's own kind of map, which it does not export.
    let mut vocab = WordPiece::read_bytes(&[]).map_err(|error| invalid("model", &error))?;
    vocab.extend(parts.vocab);
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token(parts.unk_token)
        .max_input_chars_per_word(parts.max_word_chars)
        .build()
        .map_err(|error| invalid("model", &error))?;
    let mut inner = tokenizers::Tokenizer::new(model);
    inner
        .with_normalizer(
            parts.normalizer.map(|n| {
                BertNormalizer::new(n.clean_text, n.handle_chinese_chars, n.strip_accents, n.lowercase)
            }),
        )
        .map_err(|error| invalid("normalizer", &error))?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));

    let mut added_tokens = parts.added_tokens;
    // New ids are given in order, so the order must be that of the ids.
    added_tokens.sort_by_key(|token| token.id);
    let mut cleaned = HashSet::new();
    for token in &added_tokens {
        let mut text = NormalizedString::from(token.content.as_str());
        if let (true, Some(normalizer)) = (token.normalized, inner.get_normalizer()) {
            normalizer.normalize(&mut text).map_err(|error| invalid("added_tokens", &error))?;
        }
        // A blank would be found between any two letters, and white space at an end could be claimed by
        // two neighbours at once, which the matcher does not expect.
        if text.get().trim().is_empty() || token.content.trim() != token.content {
            return Err(Error::invalid(format!(
                "added token {} is {:?}; it must have a visible character and no white space around it",
                token.id, token.content
            )));
        }
        // The matcher would choose one of the two by the order of a hash map.
        if token.normalized && !cleaned.insert(text.get().to_owned()) {
            return Err(Error::invalid(format!(
                "added token {} is {:?}, which cleans to the same text as another",
                token.id, token.content
            )));
        }
    }
    inner
        .add_tokens(added_tokens.iter().map(|token| {
            tokenizers::AddedToken::from(token.content.clone(), token.special)
                .single_word(token.single_word)
                .lstrip(token.lstrip)
                .rstrip(token.rstrip)
                .normalized(token.normalized)
        }))
        .map_err(|error| invalid("added_tokens", &error))?;
    for token in &added_tokens {
        if inner.token_to_id(&token.content) != Some(token.id) {
            return Err(Error::invalid(format!(
                "added token {:?} has id {}, but ids after the vocabulary must have no gap",
                token.content, token.id
            )));
        }
    }

    // `encode` adds the two tokens itself; the template is here for readers of `to_json`.
    let template = TemplateProcessing::builder()
        .try_single(vec![format!("{}:0", parts.cls.text), "$A:0".into(), format!("{}:0", parts.sep.text)])
        .map_err(|error| invalid("post_processor", &error))?
        .try_pair(vec![
            format!("{}:0", parts.cls.text),
            "$A:0".into(),
            format!("{}:0", parts.sep.text),
            "$B:1".into(),
            format!("{}:1", parts.sep.text),
        ])
        .map_err(|error| invalid("post_processor", &error))?
        .special_tokens(vec![(parts.cls.text, parts.cls.id), (parts.sep.text, parts.sep.id)])
        .build()
        .map_err(|error| invalid("post_processor", &error))?;
    inner.with_post_processor(Some(template));
    Ok(inner)
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Failed { reason: one_line(&error) }
}

/// A library's message without line breaks, cut to a length that suits one line.
fn one_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(300).collect()
}
