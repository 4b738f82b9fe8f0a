//! Errors of the system in words.

use std::io;

/// Why something failed, as it stands after a colon: no number, no capital letter. What is no error of the system keeps its
/// own words.
pub fn in_words(error: &io::Error) -> String {
    if let Some(number) = error.raw_os_error() {
        return small(nix::errno::Errno::from_raw(number).desc());
    }
    let text = error.to_string();
    match text.find(" (os error ") {
        // One of the system is inside.
        Some(end) => small(&text[..end]),
        None => text,
    }
}

/// With a small first letter, but for words like "I/O".
fn small(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_neither_number_nor_capital() {
        let of = |number| in_words(&io::Error::from_raw_os_error(number));
        assert_eq!(of(libc::ENOENT), "no such file or directory");
        assert_eq!(of(libc::EIO), "I/O error");
        let own = io::Error::other("X says no");
        assert_eq!(in_words(&own), "X says no");
        let inside = io::Error::other(io::Error::from_raw_os_error(libc::ENOENT).to_string());
        assert_eq!(in_words(&inside), "no such file or directory");
    }
}
