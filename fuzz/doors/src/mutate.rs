//! Changes to a model's file that reach the checks behind the first ones.
//!
//! Random bytes hardly get beyond a length. So a file is taken apart, one field is changed, and what follows from it is set right
//! again, most of the time.

use crate::raw::{Key, Raw, array, kind, string};
use crate::tiny;

/// Numbers at which checks fail.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    31,
    32,
    33,
    255,
    256,
    1 << 14,
    1 << 16,
    1 << 20,
    1 << 24,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];

/// Texts that mean something to some reader.
const TEXTS: [&[u8]; 16] = [
    b"",
    b"lxmert",
    b"llama",
    b"bert",
    b"none",
    b"nlvr2",
    b"pretraining",
    b"question_answering",
    b"patch_grid",
    b"regions",
    b"relu",
    b"gelu_new",
    b"[CLS]",
    b"a\0b",
    b"\xff\xfe",
    b"##",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.next(),
            1 => self.next() % 64,
            _ => NUMBERS[self.below(NUMBERS.len())],
        }
    }

    fn text(&mut self) -> &'static [u8] {
        TEXTS[self.below(TEXTS.len())]
    }
}

/// A file with one to three fields changed, of at most that many bytes. Bytes that are no file give way to the tiny model.
pub fn mutate(bytes: &[u8], limit: usize, seed: u32) -> Vec<u8> {
    let mut random = Random(u64::from(seed));
    let mut raw = Raw::parse(bytes).unwrap_or_else(tiny::model);
    for _ in 0..1 + random.below(3) {
        change(&mut raw, &mut random);
    }
    let mut bytes = raw.encode();
    if random.below(16) == 0 {
        let end = random.below(bytes.len());
        bytes.truncate(end);
    }
    bytes.truncate(limit);
    bytes
}

/// [`mutate`] as libFuzzer wants it: the file takes up `size` bytes of `data` and may grow to `room`. Returns the new size.
pub fn in_place(data: &mut [u8], size: usize, room: usize, seed: u32) -> usize {
    let room = room.min(data.len());
    let changed = mutate(&data[..size.min(room)], room, seed);
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
}

fn change(raw: &mut Raw, random: &mut Random) {
    match random.below(20) {
        0 => match random.below(5) {
            0 => raw.version = random.number() as u32,
            1 => raw.tensor_count = Some(random.number()),
            2 => raw.key_count = Some(random.number()),
            3 => raw.padding = random.next() as u8,
            _ => raw.tail.push(random.next() as u8),
        },
        1 => {
            let bytes = 8 << random.below(6);
            raw.alignment = bytes;
            let claimed = if random.below(2) == 0 { bytes } else { random.number() };
            raw.set_u32("general.alignment", claimed as u32);
        }
        2..=9 => change_key(raw, random),
        10 => change_size(raw, random),
        _ => change_tensor(raw, random),
    }
}

fn change_key(raw: &mut Raw, random: &mut Random) {
    let count = raw.keys.len();
    let place = random.below(count);
    let other = random.below(count);
    let Some(key) = raw.keys.get_mut(place) else { return };
    match random.below(9) {
        0 => drop(raw.keys.remove(place)),
        1 => {
            let twin = key.clone();
            raw.keys.insert(other, twin);
        }
        2 => key.name = random.text().to_vec(),
        3 => key.name_len = Some(random.number()),
        4 => {
            key.kind = random.below(14) as u32;
            key.value = random.number().to_le_bytes().to_vec();
        }
        5 => (key.kind, key.value) = (kind::STRING, string(random.text())),
        6 => change_list(key, random),
        _ => change_value(key, random),
    }
}

/// Another value of the same type.
fn change_value(key: &mut Key, random: &mut Random) {
    match key.kind {
        kind::STRING => key.value = string(random.text()),
        kind::ARRAY => change_list(key, random),
        _ => {
            let number = random.number().to_le_bytes();
            let width = key.value.len().min(number.len());
            key.value[..width].copy_from_slice(&number[..width]);
        }
    }
}

/// A list of other length, element type or with other elements.
fn change_list(key: &mut Key, random: &mut Random) {
    match random.below(4) {
        0 => {
            let texts: Vec<_> = (0..random.below(20)).map(|_| string(random.text())).collect();
            (key.kind, key.value) = (kind::ARRAY, array(kind::STRING, texts.len() as u64, &texts.concat()));
        }
        1 => {
            let numbers: Vec<_> =
                (0..random.below(5)).flat_map(|_| (random.number() as u32).to_le_bytes()).collect();
            let element = if random.below(2) == 0 { kind::U32 } else { kind::F32 };
            (key.kind, key.value) = (kind::ARRAY, array(element, numbers.len() as u64 / 4, &numbers));
        }
        2 if key.kind == kind::ARRAY && key.value.len() >= 12 => {
            key.value[4..12].copy_from_slice(&random.number().to_le_bytes());
        }
        _ if !key.value.is_empty() => {
            let place = random.below(key.value.len());
            key.value[place] ^= 1 << random.below(8);
        }
        _ => {}
    }
}

/// A hyper-parameter, and with it every dimension of that size.
fn change_size(raw: &mut Raw, random: &mut Random) {
    let sizes: Vec<usize> = (0..raw.keys.len()).filter(|place| raw.keys[*place].kind == kind::U32).collect();
    let Some(place) = sizes.get(random.below(sizes.len())) else { return };
    let key = &mut raw.keys[*place];
    let Some(before) = key.value.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else { return };
    let after = 1 + random.below(40) as u32;
    key.value = after.to_le_bytes().to_vec();
    for tensor in &mut raw.tensors {
        for dim in &mut tensor.dims {
            if *dim == u64::from(before) {
                *dim = after.into();
            }
        }
        tensor.fit();
    }
}

fn change_tensor(raw: &mut Raw, random: &mut Random) {
    let count = raw.tensors.len();
    let (place, other) = (random.below(count), random.below(count));
    let Some(tensor) = raw.tensors.get_mut(place) else { return };
    match random.below(11) {
        0 => drop(raw.tensors.remove(place)),
        1 => {
            let twin = tensor.clone();
            raw.tensors.insert(other, twin);
        }
        2 => raw.tensors.swap(place, other),
        3 => tensor.name = random.text().to_vec(),
        4 => tensor.name_len = Some(random.number()),
        5 => tensor.dim_count = Some(random.number() as u32),
        6 => tensor.offset = Some(random.number()),
        7 => {
            if let Some(dim) = tensor.dims.first_mut() {
                *dim = random.number();
            }
            if random.below(2) == 0 {
                tensor.fit();
            }
        }
        8 => {
            tensor.dims.push(random.number());
            if random.below(2) == 0 {
                tensor.fit();
            }
        }
        9 => {
            tensor.kind = random.below(40) as u32;
            if random.below(4) > 0 {
                tensor.fit();
            }
        }
        _ if !tensor.data.is_empty() => {
            // Not a number, infinite and largest, wherever floats may lie.
            let values = [0x7fc0_0000u32, 0x7f80_0000, 0x7f7f_ffff, 0xff80_0000, 1, random.next() as u32];
            let bytes = values[random.below(values.len())].to_le_bytes();
            let place = random.below(tensor.data.len() / 4) * 4;
            let room = tensor.data.len().min(place + 4);
            tensor.data[place..room].copy_from_slice(&bytes[..room - place]);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes must get past the first checks, or there is no use in taking files apart.
    #[test]
    fn changes_reach_different_checks() {
        let whole = tiny::model().encode();
        let (mut accepted, mut refusals) = (0, std::collections::BTreeSet::new());
        for seed in 0..2000 {
            match lxmert::Model::from_bytes(&mutate(&whole, 1 << 20, seed)) {
                Ok(_) => accepted += 1,
                Err(error) => {
                    let text = error.to_string();
                    refusals.insert(
                        text.chars().filter(|c| c.is_alphabetic() || *c == ' ').take(60).collect::<String>(),
                    );
                }
            }
        }
        assert!(accepted > 50, "{accepted}");
        assert!(refusals.len() > 60, "{refusals:?}");
    }

    #[test]
    fn the_same_seed_changes_the_same() {
        assert_eq!(mutate(b"", 1 << 20, 7), mutate(b"", 1 << 20, 7));
        assert!(mutate(b"", 100, 7).len() <= 100);
        let mut room = vec![0; 1 << 20];
        let size = in_place(&mut room, 0, 1 << 20, 7);
        assert!(room[..size] == mutate(b"", 1 << 20, 7));
    }
}
