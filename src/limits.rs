//! How much of anything is taken from files and callers.

use crate::Error;

/// Makes the struct, and what goes by the limits' names.
macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident = $default:expr, at most $most:expr;)*) => {
        /// How large things may be that come from files and callers. What is larger is refused with the limit's name, before memory is
        /// taken for it.
        ///
        /// The defaults are far beyond real models, pictures and questions, and keep what a stranger's file can cost within what a small
        /// board has. Who trusts a file that needs more raises the limit by name: here, or in the programs with `--limit NAME=N`; who
        /// has less memory lowers it. Each can be raised to some most value, so that sizes computed from it stay in range; a larger
        /// one counts as that.
        ///
        /// Ranges of hyper-parameters are no limits: they are part of what a model is, and named in the errors about them.
        ///
        /// ```
        /// let mut options = lxmert::ModelOptions::default();
        /// options.limits.batch = 8;
        /// options.limits.question_bytes = 1 << 10;
        /// let error = options.open("no-such-file.gguf").unwrap_err();
        /// # assert!(matches!(error, lxmert::Error::Io { .. }));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[doc = $doc])* #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")] pub $name: usize,)*
        }

        impl Limits {
            /// The defaults.
            pub const DEFAULT: Self = Limits { $($name: $default,)* };

            /// The limits' names.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];

            /// Sets the limit of that name.
            ///
            /// # Errors
            /// [`Error::Input`] for a name that no limit has, or a value that it cannot have.
            pub fn set(&mut self, name: &str, value: usize) -> Result<(), Error> {
                match name {
                    $(stringify!($name) if (1..=$most).contains(&value) => self.$name = value,
                    stringify!($name) => return Err(refusal(name, { const MOST: usize = $most; format!("1 to {MOST}") }, value.to_string())),)*
                    _ => return Err(refusal("limit", format!("one of {}", Self::NAMES.join(", ")), format!("{name:?}"))),
                }
                Ok(())
            }

            /// As they are, but none beyond its most.
            pub fn in_range(self) -> Self {
                Limits { $($name: self.$name.min($most),)* }
            }
        }
    };
}

/// How to raise the limit of that name, as part of an error.
macro_rules! raise {
    ($name:ident) => {{
        const _: usize = $crate::Limits::DEFAULT.$name;
        concat!(
            "raise the limit ",
            stringify!($name),
            ": --limit ",
            stringify!($name),
            "=N, Limits::",
            stringify!($name)
        )
    }};
}
pub(crate) use raise;

limits! {
    /// Bytes of a model file's header beside its vocabulary: keys, values, and the list of tensors. A model with a thousand tensors
    /// and a hundred keys takes about a tenth. Also of the header of a `.safetensors` file of features.
    header_bytes = 1 << 20, at most 1 << 30;
    /// Bytes of all vocabulary of a model file, the one large part of a header: the values of keys that begin with `tokenizer.` or end
    /// in `.classifier.output_labels`.
    vocabulary_bytes = 64 << 20, at most 1 << 32;
    /// Keys of a model file.
    metadata_keys = 4096, at most 1 << 20;
    /// Bytes of a key in a model file; the longest in use has about 60.
    key_bytes = 1024, at most 65535;
    /// Bytes of one string in a model file, and of a `tokenizer.json`: that of BERT has 0.7 million.
    string_bytes = 16 << 20, at most 1 << 32;
    /// Tensors of a model file. The largest configuration that the runtime takes has less than 7000.
    tensors = 8192, at most 1 << 20;
    /// Pieces of a tokenizer's vocabulary, and ids; that of BERT has 30 522.
    vocabulary_pieces = 1 << 20, at most 1 << 24;
    /// Bytes of a question.
    question_bytes = 64 << 10, at most 1 << 24;
    /// Tokens of a question that a session can be made for, whatever the model takes.
    tokens = 1 << 14, at most 1 << 14;
    /// Regions of an image, which are the rows of its features. Models are trained with 36 to 100; a patch grid has at most 64 x 64.
    regions = 4096, at most 8192;
    /// Pairs of image and question in one run.
    batch = 1024, at most 4096;
    /// Bytes of memory that a session can be made to take.
    session_bytes = 1 << 34, at most 1 << 40;
    /// Pixels along a side of a picture.
    image_side = 16384, at most 65535;
    /// Bytes of a picture's file.
    image_file_bytes = 256 << 20, at most 1 << 32;
    /// Bytes of memory that decoding a picture may take: room for 64 million pixels of 16-bit RGBA.
    image_memory_bytes = 512 << 20, at most 1 << 32;
    /// Bytes of a feature file, or of the line of one image in a `.tsv` file.
    feature_file_bytes = 144 << 20, at most 1 << 36;
    /// Values of an array in a feature file: 4096 for each of 4096 regions.
    feature_values = 1 << 24, at most 1 << 32;
    /// Members of an archive of arrays (`.npz`) or of a checkpoint (`.bin`, `.pth`), which has one for each tensor.
    archive_members = 1 << 14, at most 1 << 20;
    /// Bytes of what describes a checkpoint: `config.json`, answers, the index of shards, the header of a `.safetensors` file, the pickled
    /// part of a `.bin` or `.pth` file.
    description_bytes = 16 << 20, at most 1 << 30;
    /// Objects that the pickled part of a checkpoint makes, and values that it has at hand.
    pickle_objects = 1 << 18, at most 1 << 24;
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Limits {
    /// Sets a limit as `NAME=N` says, which is how programs take it.
    ///
    /// # Errors
    /// As [`set`](Self::set), and [`Error::Input`] for what is not of that form.
    pub fn set_from(&mut self, text: &str) -> Result<(), Error> {
        let parts = text.split_once('=').and_then(|(name, value)| Some((name, value.parse().ok()?)));
        let (name, value) =
            parts.ok_or_else(|| refusal("limit", "NAME=N".to_owned(), format!("{text:?}")))?;
        self.set(name, value)
    }

    /// The longest start of a model file that a header and its padding can take up, in bytes.
    pub const fn start_bytes(&self) -> usize {
        self.header_bytes.saturating_add(self.vocabulary_bytes).saturating_add(65536)
    }
}

fn refusal(name: &str, expected: String, found: String) -> Error {
    Error::Input { name: name.to_owned(), expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_by_name() {
        let mut limits = Limits::default();
        limits.set("batch", 7).unwrap();
        assert_eq!(limits, Limits { batch: 7, ..Limits::DEFAULT });
        let text = |name, value| Limits::default().set(name, value).unwrap_err().to_string();
        assert_eq!(text("batch", 5000), "batch: expected 1 to 4096, found 5000");
        assert_eq!(text("tensors", 0), "tensors: expected 1 to 1048576, found 0");
        assert!(text("bathc", 1).contains("question_bytes, tokens, regions, batch"));
        for name in Limits::NAMES {
            Limits::default().set(name, 1).unwrap();
        }
        for text in ["batch", "batch=", "batch=x", "batch=0", "bathc=1"] {
            assert!(limits.set_from(text).is_err(), "{text}");
        }
        limits.set_from("tensors=9").unwrap();
        assert_eq!(limits, Limits { batch: 7, tensors: 9, ..Limits::DEFAULT });
    }

    #[test]
    fn none_counts_beyond_its_most() {
        let mut limits = Limits { batch: usize::MAX, header_bytes: usize::MAX, ..Limits::DEFAULT };
        limits = limits.in_range();
        assert_eq!((limits.batch, limits.header_bytes), (4096, 1 << 30));
        assert_eq!(Limits::DEFAULT.in_range(), Limits::DEFAULT);
    }
}
