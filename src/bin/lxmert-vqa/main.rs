//! `lxmert-vqa`: answers questions about an image.

mod builtin;
#[path = "../support/computing.rs"]
mod computing;
#[path = "../support/loading.rs"]
mod loading;
#[path = "../support/memory.rs"]
mod memory;
mod show;
#[path = "../support/mod.rs"]
mod support;

use std::error::Error;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lxmert::text::Tokenizer;
use lxmert::vision::{
    FeatureOptions, FrontEnd, Regions, decode_image, load_features_within, load_image_within,
};
use lxmert::{Model, Session, SessionOptions};

use computing::Computing;
use loading::Loading;
use show::{Format, Shown};

/// Answer questions about an image.
///
/// Without --model, a small model answers that is part of this program: it knows pictures of 64 x 64 pixels with one coloured
/// shape (the easy-VQA data set). Without any argument it shows itself on one of them. Without --question, questions about an
/// image come one a line from standard input.
#[derive(Parser)]
#[command(version = support::version())]
struct Arguments {
    /// The model, a GGUF file made by lxmert-quantize [default: the built-in easy-VQA model].
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The image, PNG or JPEG, for a model that cuts its regions from pixels.
    #[arg(long, value_name = "FILE", conflicts_with = "features")]
    image: Option<PathBuf>,
    /// The image's regions as a detector gave them: .safetensors, .npz, .npy or .tsv.
    #[arg(long, value_name = "FILE")]
    features: Option<PathBuf>,
    /// Which image of a .tsv file.
    #[arg(long, value_name = "ID", requires = "features", conflicts_with = "image")]
    image_id: Option<String>,
    /// The boxes that belong to features in a .npy file: another .npy file.
    #[arg(long, value_name = "FILE", requires = "features", conflicts_with = "image")]
    boxes: Option<PathBuf>,
    /// A question; may be repeated. "-" reads questions from standard input, one a line.
    #[arg(long = "question", short, value_name = "TEXT")]
    questions: Vec<String>,
    /// Cut a question that is longer than the model reads, instead of refusing it.
    #[arg(long)]
    truncate: bool,
    /// How many answers to show for each question.
    #[arg(long, short = 'k', value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Print one JSON object a line for each question.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    loading: Loading,
    #[command(flatten)]
    computing: Computing,
}

#[global_allocator]
static ALLOCATOR: lxmert::Reserve = lxmert::Reserve::system();

fn main() -> ExitCode {
    support::start(|| support::finish(run(&Arguments::parse())))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    memory::program_bytes();
    let loading = arguments.loading.options()?;
    let model = match &arguments.model {
        Some(path) => loading.open(path)?,
        None => builtin::model(&loading)?,
    };
    let tokenizer = check_answers(&model)?;
    let picture = Picture::of(arguments, &model)?;

    let mut options = SessionOptions::new(&model);
    options.max_regions = picture.regions.len();
    arguments.computing.apply(&mut options)?;
    let Some(session) = arguments.computing.session(&model, options)? else { return Ok(()) };
    let mut asker = Asker {
        session,
        tokenizer,
        truncate: arguments.truncate,
        format: if arguments.json { Format::Json } else { Format::Text },
        top_k: arguments.top_k as usize,
    };
    asker.session.encode_image(&picture.regions).map_err(|error| picture.explain(arguments, error))?;

    let is_demo = picture.is_builtin && arguments.questions.is_empty();
    if is_demo && !arguments.json {
        show::introduction(&builtin::picture()?)?;
    }
    if is_demo {
        return builtin::QUESTIONS.iter().try_for_each(|question| asker.ask(question));
    }
    if arguments.questions.is_empty() {
        return asker.ask_lines(std::io::stdin().lock());
    }
    arguments.questions.iter().try_for_each(|question| match question.as_str() {
        "-" => asker.ask_lines(std::io::stdin().lock()),
        question => asker.ask(question),
    })
}

/// What is missing in a model that was converted without tokenizer or answers is told before anything is computed.
fn check_answers(model: &Model) -> Result<&Tokenizer, Box<dyn Error>> {
    if model.config().head.labels().is_none() {
        return Err("the model has no answer head: lxmert-vqa needs a question-answering or pre-training checkpoint; \
                    lxmert-run gives the outputs that this one has"
            .into());
    }
    if model.config().head.images() > 1 {
        return Err("the model judges statements about two images (NLVR2): lxmert-run takes both".into());
    }
    let tokenizer = model.tokenizer()?;
    if model.labels().is_none() {
        return Err("the model's file holds no answers: convert it again with --labels".into());
    }
    Ok(tokenizer)
}

/// The image that the questions are about.
struct Picture {
    regions: Regions,
    is_builtin: bool,
}

impl Picture {
    fn of(arguments: &Arguments, model: &Model) -> Result<Self, Box<dyn Error>> {
        let is_builtin = arguments.image.is_none() && arguments.features.is_none();
        if let Some(path) = &arguments.features {
            let mut options = FeatureOptions::default();
            options.image_id.clone_from(&arguments.image_id);
            options.boxes.clone_from(&arguments.boxes);
            return Ok(Picture {
                regions: load_features_within(path, &options, model.limits())?,
                is_builtin,
            });
        }
        let FrontEnd::PatchGrid(grid) = model.front_end() else {
            return Err("this model takes regions from a detector, not pixels: pass --features FILE".into());
        };
        let image = match &arguments.image {
            Some(path) => load_image_within(path, model.limits())?,
            None if arguments.model.is_some() => return Err("no image: pass --image FILE".into()),
            None => decode_image(builtin::PICTURE)?,
        };
        Ok(Picture { regions: grid.regions(&image)?, is_builtin })
    }

    /// Says which file does not fit, and what would.
    fn explain(&self, arguments: &Arguments, error: lxmert::Error) -> Box<dyn Error> {
        let Some(path) = &arguments.features else { return error.into() };
        let hint = match arguments.model {
            None => "; the built-in model reads pictures (--image), other features need their --model",
            Some(_) => "",
        };
        format!("{}: {error}{hint}", path.display()).into()
    }
}

struct Asker<'m> {
    session: Session,
    tokenizer: &'m Tokenizer,
    truncate: bool,
    format: Format,
    top_k: usize,
}

impl Asker<'_> {
    fn ask(&mut self, question: &str) -> Result<(), Box<dyn Error>> {
        let limit = self.session.options().max_tokens;
        let encoded = self.tokenizer.encode_truncated(question, limit)?;
        let tokens = encoded.ids.len() + encoded.dropped;
        if encoded.dropped > 0 && !self.truncate {
            return Err(format!(
                "the question has {tokens} tokens, but the model reads {limit}: shorten it, or pass --truncate to drop \
                 the last {}",
                encoded.dropped
            )
            .into());
        }
        if encoded.dropped > 0 {
            eprintln!(
                "warning: the question has {tokens} tokens and the model reads {limit}: the last {} were dropped",
                encoded.dropped
            );
        }
        let answers = self.session.ask_tokens(&encoded.ids)?;
        let shown = Shown { question, tokens, dropped: encoded.dropped, answers: answers.top(self.top_k) };
        Ok(shown.print(self.format)?)
    }

    /// Answers every line. A line that cannot be answered is reported and does not stop the others.
    fn ask_lines(&mut self, lines: impl BufRead) -> Result<(), Box<dyn Error>> {
        let prompts = std::io::stdin().is_terminal();
        let prompt = || -> std::io::Result<()> {
            if prompts {
                eprint!("question> ");
                std::io::stderr().flush()?;
            }
            Ok(())
        };
        let (mut asked, mut failed) = (0, 0);
        prompt()?;
        for line in lines.split(b'\n') {
            let line = line.map_err(|error| format!("standard input: {error}"))?;
            // What is no UTF-8 becomes U+FFFD, which the tokenizer drops.
            let line = String::from_utf8_lossy(&line);
            if !line.trim().is_empty() {
                asked += 1;
                if let Err(error) = self.ask(&line) {
                    if error.is::<std::io::Error>() {
                        return Err(error);
                    }
                    eprintln!("error: {error}");
                    failed += 1;
                }
            }
            prompt()?;
        }
        if prompts {
            eprintln!();
        }
        match (asked, failed) {
            (0, _) => Err("no question: pass --question, or one a line on standard input".into()),
            (_, 0) => Ok(()),
            _ => Err(format!("{failed} of {asked} questions were not answered").into()),
        }
    }
}
