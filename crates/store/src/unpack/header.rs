//! The 512 bytes in front of each entry, in the forms of POSIX ustar, GNU and old tar. The
//! fields' places come from the tar crate; what they mean is read here.

use tar::{EntryType, Header};

use super::pax::Time;

/// Size of a header, and what all data is filled up to.
pub(super) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Symlink,
    /// A hard link.
    Link,
    Fifo,
    Device,
    /// A file with holes, in GNU's old form.
    Sparse,
    /// GNU: the data is the name of the next entry.
    LongName,
    /// GNU: the data is the target of the next entry.
    LongLink,
    /// POSIX: the data are attributes of the next entry.
    Extended,
    /// POSIX: attributes of all that follows. Ignored, as by Go's archive/tar.
    Global,
}

/// What a header says.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: Time,
}

/// Read a header. The error says what is wrong.
pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Fields, String> {
    let header = Header::from_byte_slice(block);
    let old = header.as_old();
    check_sum(block)?;
    let number = |field: &[u8], what: &str| {
        number(field).ok_or_else(|| format!("the {what} in its header is not a number"))
    };
    let name = header.path_bytes().into_owned();
    let kind = match header.entry_type() {
        // Before there was a kind for directories they had a slash.
        EntryType::Regular if old.linkflag[0] == 0 && name.ends_with(b"/") => Kind::Dir,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Dir,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::Link,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        EntryType::GNUSparse => Kind::Sparse,
        EntryType::GNULongName => Kind::LongName,
        EntryType::GNULongLink => Kind::LongLink,
        EntryType::XHeader => Kind::Extended,
        EntryType::XGlobalHeader => Kind::Global,
        other => {
            return Err(format!(
                "its kind ({}) is unknown",
                char::from(other.as_byte()).escape_default()
            ));
        }
    };
    Ok(Fields {
        kind,
        name,
        link: until_zero(&old.linkname).to_vec(),
        // Higher bits repeat the kind in some archives.
        mode: (number(&old.mode, "mode")? & 0o7777) as u32,
        uid: number(&old.uid, "owner")?,
        gid: number(&old.gid, "group")?,
        size: number(&old.size, "size")?,
        mtime: Time {
            seconds: number(&old.mtime, "time")?,
            nanoseconds: 0,
        },
    })
}

/// The sum over all bytes, with the field of the sum itself as spaces. Old programs added signed
/// bytes.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), String> {
    let expected = number(&block[148..156]);
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (index, &byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&index) {
            b' '
        } else {
            byte
        };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if expected == Some(unsigned) || expected == Some(signed) {
        Ok(())
    } else {
        Err("the checksum of its header is wrong: the archive is damaged".to_owned())
    }
}

/// A number in octal digits, or, with the highest bit set, in base 256, two's complement.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value = if negative { -1_i128 } else { 0 };
        for (index, &byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative {
                byte & 0x7f
            } else {
                byte
            };
            value = (value << 8) | i128::from(byte);
            // Fields have at most twelve bytes, so the shifted value fits.
        }
        return i64::try_from(value).ok();
    }
    let digits = until_zero(trim_start(field)).trim_ascii();
    if digits.is_empty() {
        return Some(0);
    }
    digits.iter().try_fold(0_i64, |value, &digit| {
        (b'0'..=b'7').contains(&digit).then_some(())?;
        value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))
    })
}

fn trim_start(field: &[u8]) -> &[u8] {
    let start = field
        .iter()
        .position(|&byte| byte != b' ' && byte != 0)
        .unwrap_or(field.len());
    &field[start..]
}

/// The part of a field in front of the first zero byte.
pub(super) fn until_zero(field: &[u8]) -> &[u8] {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    &field[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_forms() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"        "), Some(0));
        assert_eq!(number(b"777777777777"), Some(0o777_777_777_777));
        assert_eq!(number(b"9\0"), None);
        assert_eq!(number(b"-1\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0x20, 0, 1]), Some(0x20_0001));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(&[0xff, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0xfe, 0]),
            Some(-512)
        );
        // More than an i64 holds.
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_damaged_header_is_noticed() {
        let mut header = Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_size(3);
        header.set_cksum();
        let mut block = *header.as_bytes();
        assert_eq!(parse(&block).unwrap().name, b"a");
        block[0] = b'b';
        assert!(parse(&block).unwrap_err().contains("checksum"));
    }

    #[test]
    fn unknown_kinds_are_refused() {
        let mut header = Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_size(0);
        header.set_entry_type(EntryType::new(b'V'));
        header.set_cksum();
        assert!(parse(header.as_bytes()).unwrap_err().contains("kind (V)"));
    }
}
