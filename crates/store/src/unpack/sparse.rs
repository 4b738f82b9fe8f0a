//! Files with holes: only some regions of such a file are in the archive.

use tar::{GnuExtSparseHeader, GnuSparseHeader};

use super::header::number;

/// A region of a file that has data; the rest of it reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The most regions that a file may have; at 16 bytes each.
pub(super) const LIMIT: usize = 1 << 20;

/// Check a map: regions follow one another inside the file, and have exactly the data that is
/// there. The error says what is wrong.
pub(super) fn check(map: &[Region], real_size: u64, stored: u64) -> Result<(), &'static str> {
    let wrong = "its map of holes is wrong";
    let (mut end, mut sum) = (0, 0_u64);
    for region in map {
        if region.offset < end {
            return Err(wrong);
        }
        end = region.offset.checked_add(region.len).ok_or(wrong)?;
        sum += region.len;
    }
    if end > real_size || sum != stored {
        return Err(wrong);
    }
    Ok(())
}

/// The regions in a header, or in a block that continues it; empty slots end it.
pub(super) fn regions(
    slots: &[GnuSparseHeader],
    map: &mut Vec<Region>,
) -> Result<(), &'static str> {
    for slot in slots {
        if slot.offset[0] == 0 || slot.numbytes[0] == 0 {
            break;
        }
        let value = |field: &[u8]| {
            number(field)
                .and_then(|value| u64::try_from(value).ok())
                .ok_or("its map of holes is wrong")
        };
        push(
            map,
            Region {
                offset: value(&slot.offset)?,
                len: value(&slot.numbytes)?,
            },
        )?;
    }
    Ok(())
}

/// Read a block that continues the map of a header; whether another one follows.
pub(super) fn continued(block: &[u8; 512], map: &mut Vec<Region>) -> Result<bool, &'static str> {
    let mut extension = GnuExtSparseHeader::new();
    extension.as_mut_bytes().copy_from_slice(block);
    regions(&extension.sparse, map)?;
    Ok(extension.is_extended())
}

/// Add a region, up to the limit.
pub(super) fn push(map: &mut Vec<Region>, region: Region) -> Result<(), &'static str> {
    if map.len() >= LIMIT {
        return Err("it has too many holes");
    }
    map.push(region);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(offset: u64, len: u64) -> Region {
        Region { offset, len }
    }

    #[test]
    fn maps_must_fit() {
        let map = [region(0, 4), region(10, 2)];
        assert!(check(&map, 20, 6).is_ok());
        assert!(check(&map, 12, 6).is_ok());
        assert!(check(&map, 11, 6).is_err());
        assert!(check(&map, 20, 7).is_err());
        assert!(check(&[region(4, 2), region(5, 1)], 20, 3).is_err());
        assert!(check(&[region(u64::MAX, 2)], u64::MAX, 2).is_err());
        assert!(check(&[], 20, 0).is_ok());
        // What a large map adds up to.
        assert!(check(&[region(0, u64::MAX)], u64::MAX, u64::MAX).is_ok());
    }
}
