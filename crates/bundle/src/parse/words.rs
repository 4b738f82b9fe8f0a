//! `--entrypoint` and `--image-volume`.

use crate::{Error, ImageVolumes};

/// Reads `--entrypoint`: a JSON list of words, or one word as it stands.
///
/// Empty text is one empty word: it clears the image's entrypoint *and* its command, where `[]` clears the entrypoint alone.
pub fn entrypoint(text: &str) -> Vec<String> {
    serde_json::from_str::<Vec<String>>(text).unwrap_or_else(|_| vec![text.to_string()])
}

/// Reads `--image-volume`: `anonymous` (also called `bind`), `tmpfs` or `ignore`; empty is the default.
///
/// # Errors
/// podman's `invalid image volume mode "X" required value: …`.
pub fn image_volumes(text: &str) -> Result<ImageVolumes, Error> {
    match text {
        "" | "bind" | "anonymous" => Ok(ImageVolumes::Anonymous),
        "tmpfs" => Ok(ImageVolumes::Tmpfs),
        "ignore" => Ok(ImageVolumes::Ignore),
        _ => Err(Error::value(format!(
            "invalid image volume mode {text:?} required value: anonymous, tmpfs, ignore"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entrypoints() {
        let none: [&str; 0] = [];
        assert_eq!(entrypoint(""), [""]);
        assert_eq!(entrypoint("[]"), none);
        assert_eq!(entrypoint("sh"), ["sh"]);
        assert_eq!(entrypoint("sh -c"), ["sh -c"]);
        assert_eq!(entrypoint("[\"sh\",\"-c\"]"), ["sh", "-c"]);
        assert_eq!(entrypoint("[\"sh\""), ["[\"sh\""]);
        assert_eq!(entrypoint("{\"a\":1}"), ["{\"a\":1}"]);
    }

    #[test]
    fn image_volume_modes() {
        assert_eq!(image_volumes("bind").unwrap(), ImageVolumes::Anonymous);
        assert_eq!(image_volumes("tmpfs").unwrap(), ImageVolumes::Tmpfs);
        assert_eq!(image_volumes("ignore").unwrap(), ImageVolumes::Ignore);
        assert!(image_volumes("x").is_err());
    }
}
