//! What the parts of a name may be made of (distribution's reference grammar).

use super::{LOCALHOST, ParseError, TAG_MAX};
use rcon_store::Digest;

/// Whether the first part of a name is a registry rather than a part of the path.
pub(super) fn is_registry_like(first: &str) -> bool {
    first.contains(['.', ':', '['])
        || first == LOCALHOST
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

/// Whether a name could not be told from an image's id.
pub(super) fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A host and, after a colon, its port.
pub(super) fn is_domain(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return false;
        };
        let ok = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        if !ok || !(after.is_empty() || after.starts_with(':')) {
            return false;
        }
        return after.is_empty() || is_port(&after[1..]);
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
pub(super) fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !(bytes.first().is_some_and(|b| alnum(*b)) && bytes.last().is_some_and(|b| alnum(*b))) {
        return false;
    }
    bytes
        .split(|b| alnum(*b))
        .all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|b| *b == b'-'))
}

/// What comes after the colon.
pub(crate) fn is_tag(text: &str) -> bool {
    (1..=TAG_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !text.starts_with(['.', '-'])
}

/// What comes after the `@`; `name` is the whole name, for the error.
pub(super) fn parse_digest(name: &str, text: &str) -> Result<Digest, ParseError> {
    let err = |why| ParseError::Digest {
        name: name.to_owned(),
        why,
    };
    let format = || ParseError::Format(name.to_owned());
    let (algorithm, hex) = text.split_once(':').ok_or_else(format)?;
    let word = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_alphabetic())
            && w.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    if !algorithm.split(['-', '_', '+', '.']).all(word)
        || hex.len() < 32
        || !hex.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Err(format());
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return Err(err("unsupported digest algorithm")),
    };
    if hex.len() != length {
        return Err(err("invalid checksum digest length"));
    }
    text.parse()
        .map_err(|_| err("invalid checksum digest format"))
}
