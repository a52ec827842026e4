//! Answer tables, in the forms that are met in the wild.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use lxmert::Limits;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::Error;
use crate::files::read_json;

/// The answers of a head, in the order of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    /// Where they come from.
    pub origin: String,
    /// The answers.
    pub answers: Vec<String>,
}

impl Labels {
    /// Reads a table from a JSON file.
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, Error> {
        Self::from_table(read_json(path, limits)?, path.display().to_string())
    }

    /// Brings a table of any form into the order of the head's rows.
    pub fn from_table(table: Table, origin: String) -> Result<Self, Error> {
        match table.answers() {
            Ok(answers) => Ok(Labels { origin, answers }),
            Err(reason) => Err(Error::Labels { origin, reason }),
        }
    }

    /// Demands an answer for each of the head's rows.
    pub fn check_len(&self, rows: usize) -> Result<(), Error> {
        if self.answers.len() == rows {
            return Ok(());
        }
        let reason = format!("{} answers for a head of {rows}", self.answers.len());
        Err(Error::Labels { origin: self.origin.clone(), reason })
    }

    /// Answers that occur more than once: legal, since each row is an answer of its own, but rarely meant.
    pub fn duplicates(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        self.answers.iter().filter(|answer| !seen.insert(answer.as_str())).cloned().collect()
    }
}

/// An answer table as it stands in a file.
///
/// The forms are: a list of strings; a list of objects with the answer in `ans` (the original's table for
/// pre-training); an object from id to answer (Hugging Face's `id2label`); an object from answer to id. Ids may
/// be numbers or numerals. Objects are kept as pairs, so that a key which comes twice is noticed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Table {
    List(Vec<Value>),
    Pairs(Vec<(String, Value)>),
    Other,
}

impl Table {
    /// Whether this is what transformers writes for a model whose labels nobody named: `LABEL_0`, ….
    pub fn is_placeholder(&self) -> bool {
        match self {
            Table::Pairs(pairs) => {
                pairs.iter().all(|(id, label)| label.as_str() == Some(&format!("LABEL_{id}")))
            }
            _ => false,
        }
    }

    fn answers(self) -> Result<Vec<String>, String> {
        match self {
            Table::List(items) => items.into_iter().enumerate().map(|(n, item)| list_item(n, item)).collect(),
            Table::Pairs(pairs) => in_order(ids_and_answers(pairs)?),
            Table::Other => Err("neither a list of answers nor an object of answers and ids".to_owned()),
        }
    }
}

fn list_item(position: usize, item: Value) -> Result<String, String> {
    let answer = match item {
        Value::Object(mut fields) => fields.remove("ans"),
        item => Some(item),
    };
    match answer {
        Some(Value::String(answer)) => Ok(answer),
        _ => Err(format!("entry {position} is neither a string nor an object with a string \"ans\"")),
    }
}

fn ids_and_answers(pairs: Vec<(String, Value)>) -> Result<Vec<(usize, String)>, String> {
    // Where both sides are numerals, as for answers to "how many", Hugging Face's id2label is assumed.
    let by_id = pairs.iter().all(|(key, value)| key.parse::<usize>().is_ok() && value.is_string());
    let pair = |(key, value): (String, Value)| match value {
        Value::String(answer) if by_id => Ok((key.parse().unwrap_or_default(), answer)),
        value => match id(&value) {
            Some(id) => Ok((id, key)),
            None => Err(format!("entry {key:?} is neither an id with an answer nor an answer with an id")),
        },
    };
    pairs.into_iter().map(pair).collect()
}

fn id(value: &Value) -> Option<usize> {
    match value {
        Value::String(numeral) => numeral.parse().ok(),
        value => value.as_u64().and_then(|id| usize::try_from(id).ok()),
    }
}

fn in_order(mut pairs: Vec<(usize, String)>) -> Result<Vec<String>, String> {
    pairs.sort_by_key(|(id, _)| *id);
    let last = pairs.len().saturating_sub(1);
    for (expected, (id, _)) in pairs.iter().enumerate() {
        let fault = match id.cmp(&expected) {
            std::cmp::Ordering::Equal => continue,
            std::cmp::Ordering::Less => format!("id {id} occurs twice"),
            std::cmp::Ordering::Greater => format!("id {expected} is missing"),
        };
        return Err(format!("the {} ids are not 0 to {last}: {fault}", pairs.len()));
    }
    Ok(pairs.into_iter().map(|(_, answer)| answer).collect())
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of answers or an object of answers and ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Table, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Table::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Table::Pairs(pairs))
    }

    fn visit_unit<E>(self) -> Result<Table, E> {
        Ok(Table::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Table, E> {
        Ok(Table::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Table, E> {
        Ok(Table::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Table, E> {
        Ok(Table::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Table, E> {
        Ok(Table::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Table, E> {
        Ok(Table::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(json: &str) -> Result<Vec<String>, String> {
        serde_json::from_str::<Table>(json).unwrap().answers()
    }

    #[test]
    fn reads_every_form() {
        for json in [
            r#"["no", "yes"]"#,
            r#"[{"ans": "no", "dsets": ["vqa"]}, {"ans": "yes", "dsets": []}]"#,
            r#"{"yes": 1, "no": 0}"#,
            r#"{"yes": "1", "no": "0"}"#,
            r#"{"1": "yes", "0": "no"}"#,
        ] {
            assert_eq!(answers(json).unwrap(), ["no", "yes"], "{json}");
        }
    }

    #[test]
    fn takes_numerals_on_both_sides_as_id2label() {
        assert_eq!(answers(r#"{"0": "1", "1": "2", "2": "0"}"#).unwrap(), ["1", "2", "0"]);
        assert_eq!(answers(r#"{"2": 0, "7": 1}"#).unwrap(), ["2", "7"]);
    }

    #[test]
    fn names_the_id_that_breaks_the_order() {
        let gap = answers(r#"{"a": 0, "b": 2}"#).unwrap_err();
        assert_eq!(gap, "the 2 ids are not 0 to 1: id 1 is missing");
        let twice = answers(r#"{"a": 0, "b": 0, "c": 1}"#).unwrap_err();
        assert_eq!(twice, "the 3 ids are not 0 to 2: id 0 occurs twice");
        let same_key = answers(r#"{"0": "a", "0": "b"}"#).unwrap_err();
        assert_eq!(same_key, "the 2 ids are not 0 to 1: id 0 occurs twice");
    }

    #[test]
    fn refuses_other_forms() {
        for json in ["3", "null", "\"yes\"", "[1, 2]", "[[]]", r#"[{"answer": "no"}]"#, r#"{"a": -1}"#] {
            assert!(answers(json).is_err(), "{json}");
        }
    }

    #[test]
    fn tells_placeholders_from_answers() {
        let table = |json| serde_json::from_str::<Table>(json).unwrap();
        assert!(table(r#"{"0": "LABEL_0", "1": "LABEL_1"}"#).is_placeholder());
        assert!(!table(r#"{"0": "no", "1": "LABEL_1"}"#).is_placeholder());
    }

    #[test]
    fn finds_answers_that_occur_twice() {
        let answers = ["", "a", "b", "a"].map(str::to_owned).to_vec();
        assert_eq!(Labels { origin: String::new(), answers }.duplicates(), ["a"]);
    }
}
