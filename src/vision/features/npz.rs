//! NumPy's archives of arrays.

use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use super::npy::{Array, Header};
use super::{Matrix, divide_boxes, regions};
use crate::vision::{Error, Regions};

const KIND: &str = ".npz";

/// Most members that an archive may have. The zip library lists them all when it opens one, and its list
/// takes ten times the memory of theirs.
const MAX_MEMBERS: usize = 4096;

/// What stands in front of each entry in an archive's own list of members.
const ENTRY_MARK: &[u8; 4] = b"PK\x01\x02";

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

pub(super) fn read(bytes: &[u8]) -> Result<Regions, Error> {
    let marks = bytes.windows(ENTRY_MARK.len());
    if marks.filter(|bytes| bytes == ENTRY_MARK).count() > MAX_MEMBERS {
        return Err(Error::format(KIND, format!("it has more than {MAX_MEMBERS} members")));
    }
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| Error::format(KIND, error.to_string()))?;
    for (features, boxes) in [("features", "boxes"), ("visual_feats", "visual_pos")] {
        if let Some(features) = matrix(&mut archive, features)? {
            let boxes = required(matrix(&mut archive, boxes)?, boxes)?;
            return regions(features, boxes);
        }
    }
    let Some(features) = matrix(&mut archive, "x")? else {
        return Err(Error::format(KIND, "it has none of the arrays features, visual_feats and x"));
    };
    let mut boxes = required(matrix(&mut archive, "bbox")?, "bbox")?;
    let mut size = |name: &str| required(array(&mut archive, name)?, name)?.scalar();
    let (width, height) = (size("image_w")?, size("image_h")?);
    divide_boxes(&mut boxes, width, height)?;
    regions(features, boxes)
}

fn required<T>(found: Option<T>, name: &str) -> Result<T, Error> {
    found.ok_or_else(|| Error::format(KIND, format!("it has no array {name}")))
}

fn matrix(archive: &mut Archive<'_>, name: &str) -> Result<Option<Matrix>, Error> {
    array(archive, name)?.map(Array::matrix).transpose()
}

/// Unpacks one member. Its own header says how long it must be, which is bounded, so that unpacking stops
/// there however much the archive holds or claims to hold.
fn array(archive: &mut Archive<'_>, name: &str) -> Result<Option<Array>, Error> {
    let mut member = match archive.by_name(&format!("{name}.npy")) {
        Ok(member) => member,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(Error::array(name, error.to_string())),
    };
    let header = Header::read(name, &mut member)?;
    let mut data = Vec::new();
    // One byte more than needed, to notice data that goes on.
    let wanted = header.data_len() as u64 + 1;
    member
        .take(wanted)
        .read_to_end(&mut data)
        .map_err(|error| Error::array(name, format!("cannot be unpacked: {error}")))?;
    Array::new(name, header, &data).map(Some)
}
