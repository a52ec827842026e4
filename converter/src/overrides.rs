//! What a person wants otherwise than the file type has it.

use lxmert::gguf::{Metadata, TensorType, Value};
use regex::Regex;

use crate::Error;
use crate::types::{FileType, holds_weights};

/// Types for some of the matrices. Vectors and small tables stay f32 whatever is asked for.
#[derive(Clone, Debug, Default)]
pub struct TypeOverrides {
    /// Leave the recipe of a mixed type out.
    pub pure: bool,
    /// Types by the name of the tensor in the GGUF file; the first pattern that is found in a name counts, and it
    /// goes before everything else.
    pub by_name: Vec<(Regex, TensorType)>,
    /// The type of the word embedding.
    pub token_embedding: Option<TensorType>,
    /// The type of the output matrices: the last of the answer head and those of the masked-language head.
    pub output_tensor: Option<TensorType>,
    /// Keep the output matrices as they are, in f32.
    pub leave_output_tensor: bool,
}

impl TypeOverrides {
    /// The type to ask for of a matrix.
    pub(crate) fn choose(&self, file_type: FileType, tensor: &str) -> TensorType {
        let by_name = self.by_name.iter().find(|(pattern, _)| pattern.is_match(tensor));
        let is_output = tensor.starts_with("cls.answer.1.") || tensor.starts_with("cls.mlm.");
        let by_place = match tensor {
            "token_embd.weight" => self.token_embedding,
            _ if is_output && self.leave_output_tensor => Some(TensorType::F32),
            _ if is_output => self.output_tensor,
            _ => None,
        };
        let by_type = || if self.pure { file_type.base() } else { file_type.of(tensor) };
        by_name.map(|(_, tensor_type)| *tensor_type).or(by_place).unwrap_or_else(by_type)
    }

    /// Refuses types that hold no weights, and patterns that none of the matrices has, which are mistakes.
    pub(crate) fn check<'a>(&self, matrices: impl Iterator<Item = &'a str> + Clone) -> Result<(), Error> {
        let by_name = self.by_name.iter().map(|(_, tensor_type)| *tensor_type);
        let mut asked = by_name.chain(self.token_embedding).chain(self.output_tensor);
        if let Some(wrong) = asked.find(|tensor_type| !holds_weights(*tensor_type)) {
            return Err(Error::TensorType(wrong));
        }
        let unused = |(pattern, _): &&(Regex, _)| !matrices.clone().any(|name| pattern.is_match(name));
        match self.by_name.iter().find(unused) {
            Some((pattern, _)) => Err(Error::Pattern { pattern: pattern.to_string() }),
            None => Ok(()),
        }
    }
}

/// A key of the metadata that gets another value, as `KEY=TYPE:VALUE` writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyOverride {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl std::str::FromStr for KeyOverride {
    type Err = String;

    /// Reads `KEY=TYPE:VALUE`, with llama-quantize's types: `int`, `float`, `bool` and `str`. An integer becomes a
    /// `u32`, or an `i64` where it does not fit.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(key, rest)| Some((key, rest.split_once(':')?)));
        let (key, (kind, value)) = parts.ok_or("give KEY=TYPE:VALUE")?;
        let wrong = || format!("{value:?} is no {kind}");
        let value = match kind {
            "int" => {
                let number: i64 = value.parse().map_err(|_| wrong())?;
                u32::try_from(number).map_or(Value::I64(number), Value::U32)
            }
            "float" => Value::F32(value.parse().map_err(|_| wrong())?),
            "bool" => Value::Bool(value.parse().map_err(|_| wrong())?),
            "str" => Value::String(value.to_owned()),
            _ => return Err(format!("no type {kind:?}: choose one of int, float, bool, str")),
        };
        Ok(KeyOverride { key: key.to_owned(), value })
    }
}

impl KeyOverride {
    pub(crate) fn apply(&self, metadata: &mut Metadata) -> Result<(), Error> {
        Ok(metadata.set(&self.key, self.value.clone())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_specific_wish_goes_first() {
        let overrides = TypeOverrides {
            by_name: vec![
                (Regex::new("ffn_(up|down)").unwrap(), TensorType::Q4_0),
                (Regex::new("ffn").unwrap(), TensorType::Q8_0),
            ],
            token_embedding: Some(TensorType::Q6K),
            output_tensor: Some(TensorType::F16),
            ..TypeOverrides::default()
        };
        let choose = |name| overrides.choose(TensorType::Q5_1.into(), name);
        assert_eq!(choose("blk.0.ffn_up.weight"), TensorType::Q4_0);
        assert_eq!(choose("token_embd.weight"), TensorType::Q6K);
        assert_eq!(choose("cls.answer.1.weight"), TensorType::F16);
        assert_eq!(choose("cls.answer.0.weight"), TensorType::Q5_1);
        let left = TypeOverrides { leave_output_tensor: true, ..TypeOverrides::default() };
        assert_eq!(left.choose(TensorType::Q5_1.into(), "cls.mlm.transform.weight"), TensorType::F32);
    }

    #[test]
    fn keys_carry_their_type() {
        let value = |text: &str| text.parse::<KeyOverride>().map(|parsed| parsed.value);
        assert_eq!(value("a.b=int:7"), Ok(Value::U32(7)));
        assert_eq!(value("a.b=int:-7"), Ok(Value::I64(-7)));
        assert_eq!(value("a.b=float:0.5"), Ok(Value::F32(0.5)));
        assert_eq!(value("a.b=bool:true"), Ok(Value::Bool(true)));
        assert_eq!(value("a.b=str:x=y:z"), Ok(Value::String("x=y:z".to_owned())));
        for wrong in ["a.b", "a.b=7", "a.b=int:x", "a.b=u8:7", "a.b=bool:1"] {
            assert!(value(wrong).is_err(), "{wrong}");
        }
    }
}
