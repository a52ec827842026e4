//! The tab-separated files of the original LXMERT, one image a line, tens of gigabytes long.

use std::io::{BufRead, BufReader, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Matrix, divide_boxes, regions};
use crate::Limits;
use crate::limits::raise;
use crate::vision::{Error, Regions};

const KIND: &str = ".tsv";

/// Ids to name in an error, and how much of each.
const KNOWN_IDS: usize = 5;
const KNOWN_ID_CHARS: usize = 64;

/// Fields of a line, in order: img_id, img_h, img_w, objects_id, objects_conf, attrs_id, attrs_conf,
/// num_boxes, boxes, features.
const FIELDS: usize = 10;

pub(super) fn read(file: impl Read, image_id: Option<&str>, limits: &Limits) -> Result<Regions, Error> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut known = Vec::new();
    let mut line = Vec::new();
    // A line with 100 regions of 2048 features takes 1.1 MB.
    let limit = limits.feature_file_bytes as u64;
    for number in 1u64.. {
        line.clear();
        reader.by_ref().take(limit + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            break;
        }
        if line.len() as u64 > limit {
            return Err(Error::TooLarge {
                what: format!("line {number}"),
                bytes: line.len() as u64,
                limit,
                remedy: raise!(feature_file_bytes),
            });
        }
        let line = line.trim_ascii_end();
        if line.is_empty() {
            continue;
        }
        let Some(end) = line.iter().position(|&byte| byte == b'\t') else {
            return Err(Error::format(KIND, format!("line {number} has no tab; expected {FIELDS} fields")));
        };
        let id = &line[..end];
        if image_id.is_some_and(|wanted| wanted.as_bytes() == id) {
            return row(number, line, limits);
        }
        if known.len() < KNOWN_IDS {
            let id = String::from_utf8_lossy(id);
            known.push(id.chars().take(KNOWN_ID_CHARS).collect());
        } else if image_id.is_none() {
            break;
        }
    }
    Err(match image_id {
        None if known.is_empty() => Error::format(KIND, "the file has no rows"),
        None => Error::ImageIdNeeded { known },
        Some(id) => Error::UnknownImageId { id: id.into(), known },
    })
}

fn row(number: u64, line: &[u8], limits: &Limits) -> Result<Regions, Error> {
    let bad = |reason: String| Error::format(KIND, format!("line {number}: {reason}"));
    let text = str::from_utf8(line).map_err(|_| bad("is not UTF-8".into()))?;
    let fields: Vec<&str> = text.split('\t').take(FIELDS + 1).collect();
    let &[_, height, width, _, _, _, _, count, boxes, features] = fields.as_slice() else {
        return Err(bad(format!(
            "has {}{} fields, not {FIELDS}",
            if fields.len() > FIELDS { "more than " } else { "" },
            fields.len().min(FIELDS)
        )));
    };
    let size = |name: &str, text: &str| {
        text.trim().parse::<f32>().map_err(|_| bad(format!("{name} is {:?}, not a number", shortened(text))))
    };
    let (width, height) = (size("img_w", width)?, size("img_h", height)?);
    let count = match count.trim().parse() {
        Ok(count) if (1..=limits.regions).contains(&count) => count,
        _ => {
            let (most, raise) = (limits.regions, raise!(regions));
            return Err(bad(format!("num_boxes is {:?}, not 1 to {most} ({raise})", shortened(count))));
        }
    };
    let matrix = |name: &str, text: &str| {
        let values = floats(text).map_err(|reason| bad(format!("{name} {reason}")))?;
        if values.is_empty() || values.len() % count != 0 {
            return Err(bad(format!("{name} has {} values, which is not {count} rows", values.len())));
        }
        Ok(Matrix {
            name: format!("{name} of line {number}"),
            rows: count,
            columns: values.len() / count,
            values,
        })
    };
    let mut boxes = matrix("boxes", boxes)?;
    let features = matrix("features", features)?;
    divide_boxes(&mut boxes, width, height)?;
    regions(features, boxes, limits)
}

/// Decodes little-endian 32-bit numbers from base64. Files written under Python 3 may have the text inside
/// `b'...'`.
fn floats(text: &str) -> Result<Vec<f32>, String> {
    let text = text.trim();
    let inner =
        ["'", "\""].iter().find_map(|quote| text.strip_prefix('b')?.strip_prefix(quote)?.strip_suffix(quote));
    let bytes = STANDARD.decode(inner.unwrap_or(text)).map_err(|error| format!("is not base64: {error}"))?;
    let (chunks, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(format!("has {} bytes, which are no 32-bit numbers", bytes.len()));
    }
    Ok(chunks.iter().map(|&four| f32::from_le_bytes(four)).collect())
}

fn shortened(text: &str) -> String {
    text.chars().take(20).collect()
}
