//! `--umask`.

use crate::Error;

/// Reads an octal mask of at most four digits; empty text is the default (`None`).
///
/// # Errors
/// podman's `invalid umask string X: invalid argument`.
pub fn umask(text: &str) -> Result<Option<u32>, Error> {
    match text {
        "" => Ok(None),
        _ if text.len() <= 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b)) => {
            Ok(u32::from_str_radix(text, 8).ok())
        }
        _ => Err(Error::value(format!(
            "running container create option: invalid umask string {text}: invalid argument"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::umask;

    #[test]
    fn reads_octal() {
        assert_eq!(umask("").unwrap(), None);
        for (text, mask) in [("0", 0), ("22", 0o22), ("0022", 0o22), ("7777", 0o7777)] {
            assert_eq!(umask(text).unwrap(), Some(mask));
        }
        for text in ["0o22", "999", "77777", "x", "+22", "-1"] {
            let message = format!(
                "running container create option: invalid umask string {text}: invalid argument"
            );
            assert_eq!(umask(text).unwrap_err().to_string(), message);
        }
    }
}
