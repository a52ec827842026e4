//! The safetensors format: a JSON header that says where each tensor lies.

use std::collections::HashSet;
use std::fmt;

use lxmert::numbers::Float;
use safetensors::tensor::Metadata;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::data_file::DataFile;
use super::stored::{Entry, Layout, Listing};
use crate::Error;
use crate::error::RAISE_DESCRIPTION;

/// Reads and checks the header.
pub(super) fn list(file: &DataFile) -> Result<Listing, Error> {
    let broken = |reason: String| Error::Safetensors { path: file.path.clone(), reason };
    if file.len < 8 {
        return Err(broken(format!("it has {} bytes, fewer than the 8 of a header's length", file.len)));
    }
    let mut length = [0; 8];
    file.read_at(0, &mut length)?;
    let header_len = u64::from_le_bytes(length);
    if header_len > file.len - 8 {
        return Err(broken(format!("its header claims {header_len} bytes of a file of {}", file.len)));
    }
    let limit = file.limits.description_bytes;
    if header_len > limit as u64 {
        return Err(broken(format!(
            "its header has {header_len} bytes, the limit is {limit}: {RAISE_DESCRIPTION}"
        )));
    }
    let mut header = vec![0; header_len as usize];
    file.read_at(8, &mut header)?;

    // Deserializing checks that the tensors lie one after the other and that each fills its place.
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| broken(format!("its header is broken: {error}")))?;
    let Names { twice } =
        serde_json::from_slice(&header).map_err(|error| broken(format!("its header is broken: {error}")))?;
    if let Some(name) = twice {
        return Err(broken(format!("tensor {name:?} is there twice")));
    }
    let (data_len, data_start) = (metadata.data_len() as u64, 8 + header_len);
    let found = file.len - data_start;
    if data_len != found {
        let what = if data_len > found { "cut short" } else { "too long" };
        let reason =
            format!("it is {what}: its tensors take {data_len} bytes, the file has {found} for them");
        return Err(broken(reason));
    }
    let entries = metadata.tensors().into_iter().map(|(name, info)| Entry {
        name,
        shape: info.shape.clone(),
        dtype: format!("{:?}", info.dtype),
        element: Float::of(info.dtype),
        offset: data_start + info.data_offsets.0 as u64,
        layout: Layout::Contiguous,
    });
    Ok(Listing { entries: entries.collect(), notes: Vec::new() })
}

/// The names in a header, of which JSON allows the same one twice.
struct Names {
    /// The first that is there again.
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from names to tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let (mut seen, mut twice) = (HashSet::new(), None);
                while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if let Some(name) = seen.replace(name) {
                        twice.get_or_insert(name);
                    }
                }
                Ok(Names { twice })
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
