//! A file of questions: one JSON object in each line.

use std::path::{Path, PathBuf};

use lxmert::vision::{FeatureOptions, FrontEnd, load_features, load_image};
use lxmert::{Model, Session};
use serde::Deserialize;

use super::Failure;

/// A line of the file. What else it has is not looked at.
#[derive(Debug, Deserialize)]
pub struct Question {
    /// The question.
    pub question: String,
    features: Option<PathBuf>,
    image: Option<PathBuf>,
    answer: Option<String>,
    answers: Option<Vec<String>>,
}

impl Question {
    /// The path of the image or of its features.
    fn picture(&self) -> &Path {
        self.features.as_deref().or(self.image.as_deref()).unwrap_or(Path::new(""))
    }

    /// What people answered; none if the line does not tell.
    pub fn answers(&self) -> &[String] {
        self.answers.as_deref().or(self.answer.as_ref().map(std::slice::from_ref)).unwrap_or_default()
    }
}

/// All questions of a file.
pub struct Questions {
    path: PathBuf,
    /// Each with the number of its line.
    questions: Vec<(usize, Question)>,
    lines: usize,
    /// The image that was encoded last.
    encoded: Option<PathBuf>,
}

impl Questions {
    /// Reads the first `limit` questions. Empty lines are passed over.
    pub fn read(path: &Path, limit: usize) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
        let mut questions = Vec::new();
        for (line, number) in lines.take(limit) {
            let wrong = |reason: String| format!("{}: line {number}: {reason}", path.display());
            let question: Question = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            if question.features.is_some() == question.image.is_some() {
                return Err(wrong("give exactly one of features and image".to_owned()).into());
            }
            if question.answers.is_some() && question.answer.is_some() {
                return Err(wrong("give at most one of answer and answers".to_owned()).into());
            }
            questions.push((number, question));
        }
        if questions.is_empty() {
            return Err(format!("{}: no questions", path.display()).into());
        }
        Ok(Questions { path: path.to_owned(), questions, lines: text.lines().count(), encoded: None })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// How many lines the file has, whatever the limit.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// The question of that number, from 0.
    pub fn get(&self, number: usize) -> &Question {
        &self.questions[number].1
    }

    /// Puts the line before what is wrong with it.
    pub fn wrong(&self, number: usize, reason: impl std::fmt::Display) -> Failure {
        format!("{}: line {}: {reason}", self.path.display(), self.questions[number].0).into()
    }

    /// Encodes a question's image, unless it is that of the question before. Says whether it did.
    pub fn encode(&mut self, number: usize, session: &mut Session) -> Result<bool, Failure> {
        if self.encoded.as_deref() == Some(self.get(number).picture()) {
            return Ok(false);
        }
        self.encode_again(number, session)?;
        self.encoded = Some(self.get(number).picture().to_owned());
        Ok(true)
    }

    /// Encodes a question's image.
    pub fn encode_again(&self, number: usize, session: &mut Session) -> Result<(), Failure> {
        let question = self.get(number);
        let path = self.path.parent().unwrap_or(Path::new("")).join(question.picture());
        let regions = if question.image.is_some() {
            regions_of_image(session.model(), &path)
        } else {
            load_features(&path, &FeatureOptions::default()).map_err(Failure::from)
        };
        let encoded = regions.and_then(|regions| Ok(session.encode_image(&regions)?));
        encoded.map_err(|error| self.wrong(number, error))
    }
}

fn regions_of_image(model: &Model, path: &Path) -> Result<lxmert::vision::Regions, Failure> {
    match model.front_end() {
        FrontEnd::PatchGrid(grid) => Ok(grid.regions(&load_image(path)?)?),
        FrontEnd::Regions => Err("the model takes features, not images".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Questions, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Questions::read(file.path(), usize::MAX).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_lines_and_ignores_what_it_does_not_know() {
        let text = r#"{"question": "a?", "image": "1.png", "answer": "yes", "id": 7}

{"question": "b?", "features": "2.npz", "answers": ["no", "no", "yes"]}
{"question": "c?", "image": "1.png"}"#;
        let found = read(text).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found.get(0).answers(), ["yes"]);
        assert_eq!(found.get(1).answers(), ["no", "no", "yes"]);
        assert!(found.get(2).answers().is_empty());
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        let good = r#"{"question": "a?", "image": "1.png"}"#;
        for bad in
            ["{", "{}", r#"{"question": "a?"}"#, r#"{"question": "a?", "image": "1", "features": "2"}"#]
        {
            let error = read(&format!("{good}\n\n{bad}")).err().unwrap();
            assert!(error.contains(": line 3: "), "{error}");
        }
        assert!(read("\n").is_err());
    }
}
