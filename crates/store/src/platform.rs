//! The platform an image is made for, as its configuration or an index says it, and how to choose one.
//!
//! Names follow Go's GOOS and GOARCH, as the OCI image index does; the usual spellings of `uname`
//! are understood.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, `linux` nearly always.
    #[serde(default)]
    pub os: String,
    /// Processor architecture: `amd64`, `arm64`, `arm`, `386`, `riscv64`, …
    #[serde(default)]
    pub architecture: String,
    /// Variant of the architecture: `v7` for arm, `v8` for arm64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this program runs on.
    pub fn host() -> Platform {
        let (architecture, variant) = normalize(std::env::consts::ARCH, None);
        Platform {
            os: "linux".to_owned(),
            architecture,
            variant,
        }
    }

    /// Parse `--platform`: `os/arch[/variant]`, `os/arch`, or `os` alone (then this machine's
    /// architecture).
    ///
    /// # Errors
    /// A text for people when a part is empty or there are too many.
    pub fn parse(text: &str) -> Result<Platform, String> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|p| p.is_empty()) {
            return Err(format!(
                "invalid platform syntax for {text:?} (use OS/ARCH[/VARIANT][,...])"
            ));
        }
        let ok = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if let Some(bad) = parts.iter().find(|p| !p.chars().all(ok)) {
            return Err(format!(
                "invalid platform {text:?}: {bad:?} is no name of a platform"
            ));
        }
        let host = Platform::host();
        let os = parts[0].to_ascii_lowercase();
        let (architecture, variant) = match parts.get(1) {
            Some(arch) => normalize(arch, parts.get(2).copied()),
            None => (host.architecture, host.variant),
        };
        Ok(Platform {
            os,
            architecture,
            variant,
        })
    }

    /// How well an entry of an index fits us: `None` if it cannot run here, else smaller is better.
    ///
    /// A wanted variant accepts itself and the older ones (an arm v7 machine runs v6 and v5);
    /// an entry that names no variant fits after the exact one.
    pub fn rank(&self, entry: &Platform) -> Option<u32> {
        let (architecture, variant) = normalize(&entry.architecture, entry.variant.as_deref());
        if !entry.os.eq_ignore_ascii_case(&self.os) || architecture != self.architecture {
            return None;
        }
        match (&self.variant, &variant) {
            (w, h) if w == h => Some(0),
            (None, Some(h)) => Some(if self.default_variant() == Some(h.as_str()) {
                0
            } else {
                // Nothing was asked for: the lowest variant runs on most machines.
                number(h).unwrap_or(80).saturating_add(10)
            }),
            (Some(_), None) => Some(50),
            (Some(w), Some(h)) => match (number(w), number(h)) {
                (Some(w), Some(h)) if h < w => Some(w - h),
                _ => None,
            },
            (None, None) => Some(0),
        }
    }

    fn default_variant(&self) -> Option<&'static str> {
        match self.architecture.as_str() {
            "arm64" => Some("v8"),
            "arm" => Some("v7"),
            "amd64" => Some("v1"),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// `v7` → 7.
fn number(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

/// The usual other spellings, and the variants that go without saying.
fn normalize(arch: &str, variant: Option<&str>) -> (String, Option<String>) {
    let arch = arch.to_ascii_lowercase();
    let variant = variant.filter(|v| !v.is_empty()).map(|v| {
        let v = v.to_ascii_lowercase();
        if v.starts_with(|c: char| c.is_ascii_digit()) {
            format!("v{v}")
        } else {
            v
        }
    });
    let (arch, variant) = match arch.as_str() {
        "x86_64" | "x86-64" | "amd64" => ("amd64", variant.filter(|v| v != "v1")),
        "aarch64" | "arm64" => ("arm64", variant.filter(|v| v != "v8")),
        "armhf" => ("arm", variant.or(Some("v7".into()))),
        "armel" => ("arm", variant.or(Some("v6".into()))),
        "x86" | "i386" | "i486" | "i586" | "i686" | "386" => ("386", variant),
        "powerpc64le" | "ppc64el" => ("ppc64le", variant),
        "loongarch64" => ("loong64", variant),
        other => (other, variant),
    };
    (arch.to_owned(), variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn parses_the_usual_spellings() {
        assert_eq!(p("linux/amd64"), p("linux/x86_64"));
        assert_eq!(p("linux/arm64/v8"), p("linux/aarch64"));
        assert_eq!(p("linux/arm/v7").to_string(), "linux/arm/v7");
        assert_eq!(p("linux/arm/7"), p("linux/armhf"));
        assert_eq!(p("linux"), Platform::host());
        for bad in ["", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranks_variants() {
        let v7 = p("linux/arm/v7");
        assert_eq!(v7.rank(&p("linux/arm/v7")), Some(0));
        assert_eq!(v7.rank(&p("linux/arm/v6")), Some(1));
        assert_eq!(v7.rank(&p("linux/arm/v5")), Some(2));
        assert_eq!(p("linux/arm/v6").rank(&v7), None);
        assert_eq!(v7.rank(&p("linux/arm")), Some(50));
        assert_eq!(p("linux/amd64").rank(&p("linux/amd64/v2")), Some(12));
        let last = p("linux/amd64/v4294967295");
        assert_eq!(p("linux/amd64").rank(&last), Some(u32::MAX));
        assert_eq!(p("linux/amd64").rank(&p("linux/arm64")), None);
        assert_eq!(p("linux/amd64").rank(&p("windows/amd64")), None);
        assert_eq!(p("linux/arm64/v8").rank(&p("linux/arm64")), Some(0));
    }
}
