//! Sizes in bytes as podman and docker read them: a number, perhaps with a fraction, and a unit of powers of 1024.

use crate::Error;

/// Reads a size: `1048576`, `64m`, `64MB`, `64MiB`, `1.5g`, `1 k`. Units are powers of 1024 whatever they are called.
///
/// # Errors
/// `invalid size: 'TEXT'` when it is no size or does not fit 63 bits.
pub fn bytes(text: &str) -> Result<u64, Error> {
    parse(text).ok_or_else(|| Error::value(format!("invalid size: '{text}'")))
}

fn parse(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')? + 1;
    let (number, unit) = text.split_at(end);
    let number = number.strip_suffix(' ').unwrap_or(number);
    // No sign, no exponent, no words such as "inf" that a float parser would take.
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(scale)
            .filter(|&n| i64::try_from(n).is_ok());
    }
    let value = number.parse::<f64>().ok()? * scale as f64;
    // Saturating is not wanted: what does not fit is refused.
    (value.is_finite() && value < i64::MAX as f64).then_some(value as u64)
}

/// Reads `--shm-size`; empty text is the default (`None`).
///
/// # Errors
/// podman's `unable to translate --shm-size: …`.
pub fn shm_size(text: &str) -> Result<Option<u64>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).ok_or_else(|| {
        Error::value(format!(
            "unable to translate --shm-size: invalid size: '{text}'"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_in_every_writing() {
        for (text, size) in [
            ("0", 0),
            ("1", 1),
            ("1b", 1),
            ("1k", 1024),
            ("1kb", 1024),
            ("1kib", 1024),
            ("1 m", 1 << 20),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("65536k", 64 << 20),
            ("1.5g", 3 << 29),
            ("1t", 1 << 40),
            ("2P", 2 << 50),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(bytes(text).unwrap(), size, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in [
            "",
            "-1",
            "x",
            "m",
            "1e3",
            "1z",
            "1kk",
            "1bb",
            "1.2.3",
            "inf",
            "+1",
            ".",
            "1,5m",
            "99999999999g",
            "9223372036854775808",
            "1é",
        ] {
            assert_eq!(
                bytes(text).unwrap_err().to_string(),
                format!("invalid size: '{text}'")
            );
        }
        assert_eq!(shm_size("").unwrap(), None);
        assert_eq!(
            shm_size("-1").unwrap_err().to_string(),
            "unable to translate --shm-size: invalid size: '-1'"
        );
    }
}
