//! Names in archives, and what they mean inside a layer.

/// A name that is relative to the root of the layer, without `.`, `..`, or empty parts. The root
/// itself is the empty name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(Vec<u8>);

impl Name {
    /// Read a name from an archive. The error says what is wrong with it.
    ///
    /// A leading `/` means the root of the layer. `..` takes back the part before it as written,
    /// without asking what that is; there must be one.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, &'static str> {
        if raw.contains(&0) {
            return Err("its name contains a zero byte");
        }
        let mut name = Vec::with_capacity(raw.len());
        for part in raw.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if name.is_empty() {
                        return Err("its name leads out of the layer");
                    }
                    let end = name.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                    name.truncate(end);
                }
                _ => {
                    if !name.is_empty() {
                        name.push(b'/');
                    }
                    name.extend_from_slice(part);
                }
            }
        }
        Ok(Self(name))
    }

    /// The whole name.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory and the last part; nothing for the root.
    pub(super) fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(split_last(&self.0))
    }
}

/// The directory of a name and its last part.
pub(super) fn split_last(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (b"", name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_and_plain() {
        for (raw, name) in [
            ("a/b", "a/b"),
            ("/a/b/", "a/b"),
            ("./a//b/.", "a/b"),
            ("a/../b", "b"),
            ("a/b/../../c", "c"),
            ("a/b/..", "a"),
            ("a/..", ""),
            ("./", ""),
            ("/", ""),
            ("", ""),
            ("...", "..."),
        ] {
            assert_eq!(
                Name::parse(raw.as_bytes()).unwrap().bytes(),
                name.as_bytes(),
                "{raw}"
            );
        }
    }

    #[test]
    fn nothing_leads_out() {
        for raw in ["..", "../a", "/../a", "a/../../b", "./..", "a/../.."] {
            assert!(Name::parse(raw.as_bytes()).is_err(), "{raw}");
        }
        assert!(Name::parse(b"a\0b").is_err());
    }

    #[test]
    fn splitting() {
        let name = Name::parse(b"a/b/c").unwrap();
        assert_eq!(name.split(), Some((&b"a/b"[..], &b"c"[..])));
        assert_eq!(
            Name::parse(b"a").unwrap().split(),
            Some((&b""[..], &b"a"[..]))
        );
        assert_eq!(Name::parse(b"/").unwrap().split(), None);
    }
}
