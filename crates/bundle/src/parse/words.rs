//! Flags of one word: `--entrypoint`, `--image-volume`, `--init-path`, `--personality`, `--systemd`, `--tz`.

use crate::{Error, ImageVolumes, Personality, SystemdMode};

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

/// `--systemd`
///
/// # Errors
/// podman's, for another word.
pub fn systemd(text: &str) -> Result<SystemdMode, Error> {
    match text.to_ascii_lowercase().as_str() {
        "" | "true" | "1" | "t" => Ok(SystemdMode::True),
        "false" | "0" | "f" => Ok(SystemdMode::False),
        "always" => Ok(SystemdMode::Always),
        _ => Err(Error::value(
            "invalid config provided: --systemd values must be one of \"true, false, always\": invalid configuration",
        )),
    }
}

/// `--personality`
///
/// # Errors
/// For another word.
pub fn personality(text: &str) -> Result<Personality, Error> {
    match text.to_ascii_uppercase().as_str() {
        "LINUX" | "PER_LINUX" => Ok(Personality::Linux),
        "LINUX32" | "PER_LINUX32" => Ok(Personality::Linux32),
        _ => Err(Error::value(format!(
            "unknown personality {text:?}: must be LINUX or LINUX32"
        ))),
    }
}

/// `--tz`: a zone that this host knows.
///
/// # Errors
/// podman's, for one that it does not.
pub fn time_zone(text: &str) -> Result<Option<String>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let path = zone_file(text);
    match std::fs::metadata(&path) {
        Ok(file) if file.is_file() => Ok(Some(text.to_owned())),
        Ok(_) => Err(Error::value(format!(
            "running container create option: invalid timezone {text:?}: {} is no file",
            path.display()
        ))),
        Err(_) if text == "local" => Ok(Some(text.to_owned())),
        Err(error) => Err(Error::value(format!(
            "running container create option: stat {}: {}",
            path.display(),
            rcon_sys::errors::in_words(&error)
        ))),
    }
}

/// The file of the host that says what a time zone is.
pub fn zone_file(zone: &str) -> std::path::PathBuf {
    match zone {
        "local" => "/etc/localtime".into(),
        zone => std::path::Path::new("/usr/share/zoneinfo").join(zone),
    }
}

/// `--init-path`: a program of the host.
///
/// # Errors
/// podman's, when it is not there.
pub fn init_path(text: &str, here: &std::path::Path) -> Result<std::path::PathBuf, Error> {
    let path = here.join(text);
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(Error::value(format!(
            "container-init binary not found on the host: stat {text}: {}",
            rcon_sys::errors::in_words(&error)
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
