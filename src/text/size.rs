//! What a tokenizer takes in memory, known before it is built.

use tokenizers::AddedToken;

/// How many texts a tokenizer is made of, and how long they are together.
pub(super) struct Size {
    pub pieces: usize,
    pub piece_bytes: usize,
    pub added_tokens: usize,
    pub added_token_bytes: usize,
}

/// Cleaning makes a text at most three times as long: an accent may become a letter of its own.
const CLEANED: usize = 3;

/// Bytes of a state of the library's matcher, and of something that it finds.
const MATCHER_ENTRY: usize = 12;

/// States that a matcher has at least.
const MATCHER_STATES: usize = 256;

/// For the template of what stands around a question, and the names of special tokens.
const TEMPLATE: usize = 2048;

impl Size {
    /// The most bytes that the library will ask of the allocator to hold these texts.
    pub fn memory_bytes(&self) -> usize {
        let Size { pieces, piece_bytes, added_tokens, added_token_bytes } = *self;
        // Ids by text and texts by id, each with texts of its own.
        let vocabulary =
            table_bytes::<(String, u32)>(pieces) + table_bytes::<(u32, String)>(pieces) + 2 * piece_bytes;
        // The same of the added tokens, those of them that are special, and their cleaned texts.
        let added = table_bytes::<(String, u32)>(added_tokens)
            + table_bytes::<(u32, AddedToken)>(added_tokens)
            + table_bytes::<String>(added_tokens)
            + table_bytes::<(u32, String)>(added_tokens)
            + (3 + CLEANED) * added_token_bytes;
        // One matcher finds added tokens in the text as it is, another in the cleaned text. Each has a state for every byte
        // of its tokens, in an array that is at least half full, and a list that grows by doubling.
        let states = 2 * (MATCHER_STATES + CLEANED * added_token_bytes);
        let found = 2 * (added_tokens + 4);
        vocabulary + added + (states + found) * MATCHER_ENTRY + TEMPLATE
    }
}

/// Bytes of a hash table of the standard library: a power of two of places, of which 7 in 8 are used at most, with a byte each
/// to tell which, and 16 more of these.
fn table_bytes<T>(entries: usize) -> usize {
    let places = match entries {
        0 => return 0,
        1..=3 => 4,
        4..=7 => 8,
        more => (more * 8 / 7).next_power_of_two(),
    };
    places * (size_of::<T>() + 1) + 16
}
