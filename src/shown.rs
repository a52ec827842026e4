//! Words of a stranger's file in a line for people.

use std::fmt::{self, Display, Formatter, Write};

/// The most characters that a file adds to a line. Its texts may have megabytes, and a line of those tells nobody anything.
const MOST: usize = 300;

/// What a file says, or a library about a file, so that it can stand in a line: characters that a terminal would obey, or that turn the
/// order of others around, are escaped, and what is too long is cut.
pub fn shown<T: Display>(value: T) -> impl Display {
    Shown(value)
}

struct Shown<T>(T);

impl<T: Display> Display for Shown<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut line = Line { out: f, left: MOST };
        match write!(line, "{}", self.0) {
            // The only error of this line's own.
            Err(fmt::Error) if line.left == 0 => f.write_str("..."),
            written => written,
        }
    }
}

struct Line<'a, 'f> {
    out: &'a mut Formatter<'f>,
    left: usize,
}

impl Write for Line<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let escaped = character.escape_default();
            let is_escaped = character.is_control() || changes_order(character);
            let Some(left) = self.left.checked_sub(if is_escaped { escaped.len() } else { 1 }) else {
                self.left = 0;
                return Err(fmt::Error);
            };
            self.left = left;
            if is_escaped {
                write!(self.out, "{escaped}")?;
            } else {
                self.out.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Whether a character says in which direction others are written, or ends a line (Unicode Standard Annex 9).
fn changes_order(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn plain_words_stay_as_they_are() {
        assert_eq!(shown("model.weight [3, 4] \u{e4}").to_string(), "model.weight [3, 4] \u{e4}");
        assert_eq!(shown(format_args!("{}{}", 1, 2)).to_string(), "12");
        assert_eq!(shown("a".repeat(300)).to_string(), "a".repeat(300));
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(shown("a\n\u{1b}[2J\r\u{9b}\0").to_string(), r"a\n\u{1b}[2J\r\u{9b}\u{0}");
    }

    #[test]
    fn what_turns_the_order_of_a_line_around_is_escaped() {
        assert_eq!(
            shown("a\u{202e}b\u{2066}\u{200f}\u{2028}").to_string(),
            r"a\u{202e}b\u{2066}\u{200f}\u{2028}"
        );
    }

    #[test]
    fn what_is_too_long_is_cut() {
        assert_eq!(shown("\u{e4}".repeat(301)).to_string(), format!("{}...", "\u{e4}".repeat(300)));
        assert_eq!(shown(["a"; 400].join("\n")).to_string().chars().filter(|c| *c == 'a').count(), 100);
    }
}
