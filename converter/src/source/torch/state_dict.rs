//! Where in a pickle the weights are.

use std::collections::HashSet;

use super::super::pickle::{Id, Object, Pickle, Tensor};

/// The keys under which training programs keep the weights beside the state of the optimizer and such.
const INNER_KEYS: [&str; 3] = ["state_dict", "model", "model_state_dict"];

/// The named tensors of a pickle.
#[derive(Debug)]
pub(super) struct StateDict<'p, 'a> {
    pub tensors: Vec<(&'a str, &'p Tensor<'a>)>,
    pub notes: Vec<String>,
}

/// Finds the one dictionary of tensors: the pickle itself or, one level down, what it has under one of
/// [`INNER_KEYS`]. If there are two such dictionaries, nobody knows which one is meant, and none is taken.
pub(super) fn find<'p, 'a>(pickle: &'p Pickle<'a>) -> Result<StateDict<'p, 'a>, String> {
    let Object::Dict(root) = pickle.root() else {
        return Err("it holds no dictionary of tensors: save the model's state_dict()".to_owned());
    };
    let mut found = Vec::new();
    if has_tensors(pickle, root) {
        found.push((None, root));
    }
    for key in INNER_KEYS {
        match pickle.entry(root, key) {
            Some(Object::Dict(inner)) if has_tensors(pickle, inner) => found.push((Some(key), inner)),
            _ => {}
        }
    }
    let (key, dict) = match found[..] {
        [one] => one,
        [] => return Err("it holds no dictionary of tensors: save the model's state_dict()".to_owned()),
        _ => {
            let places: Vec<_> = found.iter().map(|(key, _)| key.unwrap_or("the top level")).collect();
            return Err(format!("it holds tensors in several places: {}", places.join(", ")));
        }
    };

    let mut notes = Vec::new();
    if let Some(key) = key {
        let others: Vec<_> = keys(pickle, root).filter(|other| *other != key).collect();
        if !others.is_empty() {
            notes.push(format!(
                "the weights are its {key:?}; beside them, {} were not looked at",
                list(&others)
            ));
        }
    }
    let (mut tensors, mut others, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (name, value) in dict {
        let Object::Str(name) = *pickle.get(*name) else {
            return Err("the name of a tensor is no text".to_owned());
        };
        if !seen.insert(name) {
            return Err(format!("{name:?} is there twice"));
        }
        match pickle.get(*value) {
            Object::Tensor(tensor) => tensors.push((name, tensor)),
            _ => others.push(name),
        }
    }
    if !others.is_empty() {
        notes.push(format!("{} are no tensors and were left out", list(&others)));
    }
    Ok(StateDict { tensors, notes })
}

fn has_tensors(pickle: &Pickle<'_>, dict: &[(Id, Id)]) -> bool {
    dict.iter().any(|(_, value)| matches!(pickle.get(*value), Object::Tensor(_)))
}

fn keys<'a>(pickle: &Pickle<'a>, dict: &[(Id, Id)]) -> impl Iterator<Item = &'a str> {
    dict.iter().filter_map(|(key, _)| match *pickle.get(*key) {
        Object::Str(text) => Some(text),
        _ => None,
    })
}

/// The first few names, and how many more there are.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<_> = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    if names.len() > SHOWN {
        text.push(format!("{} more", names.len() - SHOWN));
    }
    text.join(", ")
}
