//! How answers look.

use std::io::{self, IsTerminal, Write};

use lxmert::vision::RgbImage;
use lxmert::{Answer, shown};
use serde_json::json;

/// For people or for programs.
#[derive(Clone, Copy)]
pub enum Format {
    Text,
    Json,
}

/// A question with its answers.
pub struct Shown<'a> {
    pub question: &'a str,
    /// Tokens of the whole question.
    pub tokens: usize,
    /// Tokens that the model did not read.
    pub dropped: usize,
    pub answers: Vec<Answer<'a>>,
}

impl Shown<'_> {
    pub fn print(&self, format: Format) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match format {
            Format::Text => self.text(&mut out)?,
            Format::Json => writeln!(out, "{}", self.json())?,
        }
        out.flush()
    }

    fn text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.question.trim())?;
        let texts: Vec<String> = self.answers.iter().map(text_of).collect();
        let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        for (text, answer) in texts.iter().zip(&self.answers) {
            let percent = 100.0 * answer.softmax;
            writeln!(out, "  {text:width$}  {percent:6.2} %  (score {:.2})", answer.logit)?;
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let answer = |answer: &Answer<'_>| {
            json!({
                "answer": answer.text,
                "class": answer.class,
                "logit": answer.logit,
                "softmax": answer.softmax,
                "sigmoid": answer.sigmoid,
            })
        };
        json!({
            "question": self.question,
            "tokens": self.tokens,
            "dropped_tokens": self.dropped,
            "answers": self.answers.iter().map(answer).collect::<Vec<_>>(),
        })
    }
}

/// The answer; the VQA table holds an empty one, which must still be seen.
fn text_of(answer: &Answer<'_>) -> String {
    match answer.text {
        Some("") => "\"\"".to_owned(),
        Some(text) => shown(text).to_string(),
        None => format!("class {}", answer.class),
    }
}

/// Says what the bare command does, with the picture where it can be drawn.
pub fn introduction(picture: &RgbImage) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        draw(picture, &mut out)?;
    }
    writeln!(out, "The built-in easy-VQA model on its bundled picture, models/easy-vqa/example_1.png.")?;
    writeln!(
        out,
        "Ask your own with --question (\"-\" reads them from standard input) and --image; --help tells more.\n"
    )
}

/// Draws every second pixel: an upper half block shows one as its colour and the one below as its background.
fn draw(picture: &RgbImage, out: &mut impl Write) -> io::Result<()> {
    const STEP: u32 = 2;
    for y in (0..picture.height() / (2 * STEP)).map(|row| 2 * STEP * row) {
        for x in (0..picture.width() / STEP).map(|column| STEP * column) {
            let [r, g, b] = picture.get_pixel(x, y).0;
            let [r2, g2, b2] = picture.get_pixel(x, y + STEP).0;
            write!(out, "\x1b[38;2;{r};{g};{b}m\x1b[48;2;{r2};{g2};{b2}m▀")?;
        }
        writeln!(out, "\x1b[0m")?;
    }
    writeln!(out)
}
