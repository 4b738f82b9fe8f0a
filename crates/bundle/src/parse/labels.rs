//! `--label`, `--label-file` and `--annotation`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Error;

/// Reads all `--label-file` files, then all `--label` words: `KEY[=VALUE]`; what comes later wins.
///
/// # Errors
/// podman's `unable to process labels: …`.
pub fn labels<P: AsRef<Path>>(
    files: &[P],
    words: &[String],
) -> Result<BTreeMap<String, String>, Error> {
    let failed = |why: String| Error::value(format!("unable to process labels: {why}"));
    let mut map = BTreeMap::new();
    for file in files {
        let name = file.as_ref().display().to_string();
        let text = fs::read_to_string(file)
            .map_err(|e| failed(format!("open {name}: {}", rcon_sys::errors::in_words(&e))))?;
        for line in text.lines() {
            let line = line.trim_start();
            if !line.is_empty() && !line.starts_with('#') {
                let (key, value) =
                    pair(line).ok_or_else(|| failed(format!("invalid label format: {line:?}")))?;
                map.insert(key, value);
            }
        }
    }
    for word in words {
        let (key, value) =
            pair(word).ok_or_else(|| failed(format!("invalid label format: {word:?}")))?;
        map.insert(key, value);
    }
    Ok(map)
}

fn pair(word: &str) -> Option<(String, String)> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    (!key.is_empty()).then(|| (key.to_string(), value.to_string()))
}

/// Reads `--annotation KEY=VALUE` words; empty ones are nothing.
///
/// # Errors
/// podman's `annotations must be formatted KEY=VALUE`.
pub fn annotations(words: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let mut map = BTreeMap::new();
    for word in words.iter().filter(|w| !w.is_empty()) {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| Error::value("annotations must be formatted KEY=VALUE"))?;
        map.insert(key.to_string(), value.to_string());
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_from_files_and_words() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("l");
        fs::write(&file, "# no\na=1\n\nb=2=3\nc\n").unwrap();
        let map = labels(&[&file], &["a=9".into(), "d".into()]).unwrap();
        let list: Vec<_> = map.iter().map(|(k, v)| format!("{k}:{v}")).collect();
        assert_eq!(list, ["a:9", "b:2=3", "c:", "d:"]);
        let none: &[&str] = &[];
        for word in ["", "=b"] {
            let error = labels(none, &[word.to_string()]).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("unable to process labels: invalid label format: {word:?}")
            );
        }
        let error = labels(&["/nope"], &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "unable to process labels: open /nope: no such file or directory"
        );
    }

    #[test]
    fn annotations_need_a_value() {
        assert_eq!(
            annotations(&["a=b=c".into(), "".into()]).unwrap()["a"],
            "b=c"
        );
        assert_eq!(
            annotations(&["a".into()]).unwrap_err().to_string(),
            "annotations must be formatted KEY=VALUE"
        );
    }
}
