//! Extended headers of POSIX tar (pax(1), "pax Extended Header"): lines of
//! `LENGTH KEY=VALUE\n`. The length counts, not the line feed: values are any bytes.

use std::collections::BTreeMap;

use super::sparse::Region;

/// A moment, as utimensat(2) takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Time {
    /// Seconds since 1970, before it negative.
    pub(super) seconds: i64,
    /// From 0 to 999,999,999, always forward.
    pub(super) nanoseconds: u32,
}

/// What the extended header of an entry says; nothing where it does not say anything.
#[derive(Clone, Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<i64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Time>,
    /// Extended attributes of the file: name and value.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Sparse,
}

/// GNU's records about files with holes, in its three versions.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    /// Version 1.0: the map is in front of the data.
    pub(super) in_data: bool,
    /// Versions 0.0 and 0.1: the map.
    pub(super) map: Option<Vec<Region>>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<i64>,
    major: Option<i64>,
    minor: Option<i64>,
    offset: Option<u64>,
}

/// Read an extended header. The error says what is wrong with it.
pub(super) fn parse(mut text: &[u8]) -> Result<Extended, String> {
    let mut extended = Extended::default();
    // Some programs fill the block with zero bytes and count them.
    while !text.is_empty() && text[0] != 0 {
        let (key, value, rest) = record(text).ok_or("its extended header is malformed")?;
        text = rest;
        apply(&mut extended, key, value)
            .ok_or_else(|| format!("{} in its extended header is wrong", super::shown(key)))?;
    }
    let sparse = &mut extended.sparse;
    sparse.in_data = (sparse.major, sparse.minor) == (Some(1), Some(0));
    if sparse.name.is_some() {
        extended.path = sparse.name.take();
    }
    Ok(extended)
}

/// The first record: key, value, and what comes after it.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|&byte| byte == b' ')?;
    let len: usize = decimal(&text[..space])?.try_into().ok()?;
    if len > text.len() || len < space + 3 || text[len - 1] != b'\n' {
        return None;
    }
    let pair = &text[space + 1..len - 1];
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    (equals > 0).then_some((&pair[..equals], &pair[equals + 1..], &text[len..]))
}

fn apply(extended: &mut Extended, key: &[u8], value: &[u8]) -> Option<()> {
    // A name with a zero byte in it would end there for some readers only.
    let plain = |value: &[u8]| (!value.contains(&0)).then(|| value.to_vec());
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        extended.xattrs.insert(plain(name)?, value.to_vec());
        return Some(());
    }
    let sparse = &mut extended.sparse;
    // An empty value takes the record back: the header counts again.
    let empty = value.is_empty();
    match key {
        b"path" if empty => extended.path = None,
        b"linkpath" if empty => extended.link = None,
        b"size" if empty => extended.size = None,
        b"uid" if empty => extended.uid = None,
        b"gid" if empty => extended.gid = None,
        b"mtime" if empty => extended.mtime = None,
        b"path" => extended.path = Some(plain(value)?),
        b"linkpath" => extended.link = Some(plain(value)?),
        b"size" => extended.size = Some(decimal(value)?),
        b"uid" => extended.uid = Some(decimal(value)?),
        b"gid" => extended.gid = Some(decimal(value)?),
        b"mtime" => extended.mtime = Some(time(value)?),
        b"GNU.sparse.major" => sparse.major = Some(decimal(value)?),
        b"GNU.sparse.minor" => sparse.minor = Some(decimal(value)?),
        b"GNU.sparse.name" => sparse.name = Some(plain(value)?),
        b"GNU.sparse.size" | b"GNU.sparse.realsize" => sparse.real_size = Some(decimal(value)?),
        b"GNU.sparse.offset" => sparse.offset = Some(decimal(value)?.try_into().ok()?),
        b"GNU.sparse.numbytes" => {
            let offset = sparse.offset.take()?;
            let len = decimal(value)?.try_into().ok()?;
            sparse
                .map
                .get_or_insert_default()
                .push(Region { offset, len });
        }
        b"GNU.sparse.map" => {
            let numbers = value
                .split(|&byte| byte == b',')
                .map(|digits| decimal(digits)?.try_into().ok())
                .collect::<Option<Vec<u64>>>()?;
            if !numbers.len().is_multiple_of(2) {
                return None;
            }
            let regions = numbers.chunks(2).map(|pair| Region {
                offset: pair[0],
                len: pair[1],
            });
            sparse.map = Some(regions.collect());
        }
        // Others are comments, or times that we do not set.
        _ => {}
    }
    Some(())
}

/// A whole number, not negative.
pub(super) fn decimal(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds with a fraction of any length, perhaps negative.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let mut parts = digits.splitn(2, |&byte| byte == b'.');
    let seconds = decimal(parts.next()?)?;
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0, |value, index| {
        let digit = fraction.get(index).map_or(0, |digit| digit - b'0');
        value * 10 + u32::from(digit)
    });
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Time {
            seconds,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds: 0,
        },
        (true, nanoseconds) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::testing::record;

    #[test]
    fn values_are_any_bytes() {
        let text = [
            record("path", b"a\xffb"),
            record("SCHILY.xattr.user.x", b"one\ntwo=\0three"),
            record("comment", b"nothing"),
            record("size", b"12345678901"),
        ]
        .concat();
        let extended = parse(&text).unwrap();
        assert_eq!(extended.path.unwrap(), b"a\xffb");
        assert_eq!(extended.size, Some(12_345_678_901));
        assert_eq!(
            extended.xattrs,
            BTreeMap::from([(b"user.x".to_vec(), b"one\ntwo=\0three".to_vec())])
        );
    }

    #[test]
    fn of_as_many_attributes_as_fit_the_last_of_a_name_counts() {
        let key = |number: usize| format!("SCHILY.xattr.n{}", number % 30_000);
        let records = (0..40_000).map(|number| record(&key(number), number.to_string().as_bytes()));
        let text = records.collect::<Vec<_>>().concat();
        let xattrs = parse(&text).unwrap().xattrs;
        assert_eq!(xattrs.len(), 30_000);
        assert_eq!(xattrs[&b"n7"[..]], b"30007");
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"x"[..],
            b"11 path=a\n",
            b"9 path=a",
            b"3 =\n",
            b"999999999999999999999 path=a\n",
            b"-9 path=a\n",
            b"7 patha\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        for (key, value) in [
            ("size", "-1"),
            ("size", "1e3"),
            ("uid", "root"),
            ("path", "a\0b"),
            ("mtime", "1.x"),
            ("GNU.sparse.map", "1,2,3"),
            ("GNU.sparse.numbytes", "1"),
        ] {
            assert!(parse(&record(key, value.as_bytes())).is_err(), "{key}");
        }
    }

    #[test]
    fn an_empty_value_takes_back() {
        let text = [record("path", b"a"), record("path", b"")].concat();
        assert_eq!(parse(&text).unwrap().path, None);
    }

    #[test]
    fn times_go_both_ways() {
        let at = |text: &str| {
            let time = time(text.as_bytes())?;
            Some((time.seconds, time.nanoseconds))
        };
        assert_eq!(at("12.5"), Some((12, 500_000_000)));
        assert_eq!(at("12.0000000019"), Some((12, 1)));
        assert_eq!(at("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(at("-3"), Some((-3, 0)));
        assert_eq!(at("-0.25"), Some((-1, 750_000_000)));
        assert_eq!(at(""), None);
        assert_eq!(at("--1"), None);
    }
}
