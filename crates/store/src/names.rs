//! Names of images: `names/ESCAPED` holds the id of the image with that name.
//!
//! A record lists its names, too, so that an image knows them without a search. The file here
//! decides: a name listed in a record counts only while its file leads to that image. So moving
//! a name to another image is one rename, and a crash beside it changes nothing that can be seen.

use std::io;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::atomic;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::Store;

/// The id of the image that has the name, if any has.
pub(crate) fn lookup(store: &Store, name: &str) -> Result<Option<String>> {
    let path = path_of(name);
    match atomic::read(store.dir(), &path, 256) {
        Ok(text) => Ok(parse(&text).map(str::to_owned)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(
            format!("cannot read {}", store.path(&path).display()),
            error,
        )),
    }
}

/// Let the name lead to the image.
pub(crate) fn set(store: &Store, name: &str, id: &str) -> Result<()> {
    atomic::write(store, &path_of(name), format!("{id}\n").as_bytes())
}

/// Remove the name if it leads to the image.
pub(crate) fn remove(store: &Store, name: &str, id: &str) -> Result<()> {
    if lookup(store, name)?.as_deref() != Some(id) {
        return Ok(());
    }
    let path = path_of(name);
    match rustix::fs::unlinkat(store.dir(), &path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::io(
            format!("cannot remove {}", store.path(&path).display()),
            error,
        )),
    }
}

/// Whether the text is a whole image id: 64 (or, of another algorithm, 128) hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    matches!(text.len(), 64 | 128)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn parse(text: &[u8]) -> Option<&str> {
    let id = std::str::from_utf8(text).ok()?.trim_end();
    is_id(id).then_some(id)
}

fn path_of(name: &str) -> String {
    format!("names/{}", escape(name))
}

/// A file name for any name: what is not plain becomes `%XX`, what is too long its digest.
fn escape(name: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(name.len() + 8);
    for (index, byte) in name.bytes().enumerate() {
        let plain =
            byte.is_ascii_alphanumeric() || b"_-:@".contains(&byte) || (byte == b'.' && index > 0);
        if plain {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    if escaped.is_empty() || escaped.len() > 200 {
        return format!("%{}", Digest::sha256(name.as_bytes()).hex());
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcon_sys::ids::IdMaps;

    #[test]
    fn escaping_is_safe_and_one_to_one() {
        assert_eq!(
            escape("docker.io/library/alpine:3.20"),
            "docker.io%2Flibrary%2Falpine:3.20"
        );
        let long = "x".repeat(300);
        let names = ["", ".", "..", "a/b", "a%2Fb", "../x", "a\0b", &long];
        let escaped: Vec<_> = names.iter().map(|name| escape(name)).collect();
        for (index, name) in escaped.iter().enumerate() {
            assert!(!name.starts_with('.') && !name.contains('/') && name.len() < 256);
            assert!(!escaped[..index].contains(name));
        }
    }

    #[test]
    fn names_move_and_go_only_with_their_image() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &IdMaps::single()).unwrap();
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        set(&store, "a:b", &one).unwrap();
        assert_eq!(lookup(&store, "a:b").unwrap(), Some(one.clone()));
        set(&store, "a:b", &two).unwrap();
        remove(&store, "a:b", &one).unwrap();
        assert_eq!(lookup(&store, "a:b").unwrap(), Some(two.clone()));
        remove(&store, "a:b", &two).unwrap();
        assert_eq!(lookup(&store, "a:b").unwrap(), None);
        std::fs::write(temp.path().join("names/x"), "../../etc").unwrap();
        assert_eq!(lookup(&store, "x").unwrap(), None);
    }
}
