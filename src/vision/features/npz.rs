//! NumPy's archives of arrays.

use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use super::npy::{Array, Header};
use super::{Matrix, divide_boxes, regions};
use crate::Limits;
use crate::limits::raise;
use crate::vision::{Error, Regions};

const KIND: &str = ".npz";

/// What stands in front of each entry in an archive's own list of members.
const ENTRY_MARK: &[u8; 4] = b"PK\x01\x02";

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Regions, Error> {
    // The zip library lists all members when it opens an archive, and its list takes ten times the memory of theirs.
    let (marks, most) = (bytes.windows(ENTRY_MARK.len()), limits.archive_members);
    if marks.filter(|bytes| bytes == ENTRY_MARK).count() > most {
        let reason = format!("it has more than {most} members: {}", raise!(archive_members));
        return Err(Error::format(KIND, reason));
    }
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| Error::format(KIND, error.to_string()))?;
    for (features, boxes) in [("features", "boxes"), ("visual_feats", "visual_pos")] {
        if let Some(features) = matrix(&mut archive, features, limits)? {
            let boxes = required(matrix(&mut archive, boxes, limits)?, boxes)?;
            return regions(features, boxes, limits);
        }
    }
    let Some(features) = matrix(&mut archive, "x", limits)? else {
        return Err(Error::format(KIND, "it has none of the arrays features, visual_feats and x"));
    };
    let mut boxes = required(matrix(&mut archive, "bbox", limits)?, "bbox")?;
    let mut size = |name: &str| required(array(&mut archive, name, limits)?, name)?.scalar();
    let (width, height) = (size("image_w")?, size("image_h")?);
    divide_boxes(&mut boxes, width, height)?;
    regions(features, boxes, limits)
}

fn required<T>(found: Option<T>, name: &str) -> Result<T, Error> {
    found.ok_or_else(|| Error::format(KIND, format!("it has no array {name}")))
}

fn matrix(archive: &mut Archive<'_>, name: &str, limits: &Limits) -> Result<Option<Matrix>, Error> {
    array(archive, name, limits)?.map(|array| array.matrix(limits)).transpose()
}

/// Unpacks one member. Its own header says how long it must be, which is bounded, so that unpacking stops
/// there however much the archive holds or claims to hold.
fn array(archive: &mut Archive<'_>, name: &str, limits: &Limits) -> Result<Option<Array>, Error> {
    let mut member = match archive.by_name(&format!("{name}.npy")) {
        Ok(member) => member,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(Error::array(name, error.to_string())),
    };
    let header = Header::read(name, &mut member, limits)?;
    let mut data = Vec::new();
    // One byte more than needed, to notice data that goes on.
    let wanted = header.data_len() as u64 + 1;
    member
        .take(wanted)
        .read_to_end(&mut data)
        .map_err(|error| Error::array(name, format!("cannot be unpacked: {error}")))?;
    Array::new(name, header, &data).map(Some)
}
