//! `-v`.

use std::path::Path;

use super::words::{check, complete, destination, effective, volume_name};
use super::{Source, UserMount};
use crate::Error;

/// Reads `[SOURCE:]DESTINATION[:OPTIONS]`.
///
/// A source that begins with `/` or `.` is a path (relative ones are taken from `cwd`), anything else names a volume, none
/// asks for an anonymous volume. Whether a path exists is checked when the container is built.
///
/// # Errors
/// podman's messages; for more than three parts `X: incorrect volume format, …`.
pub fn volume(text: &str, cwd: &Path) -> Result<UserMount, Error> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, place, options) = match parts[..] {
        [place] => (None, place, None),
        [source, place] => (Some(source), place, None),
        [source, place, options] => (Some(source), place, Some(options)),
        _ => {
            return Err(Error::value(format!(
                "{text}: incorrect volume format, should be [host-dir:]ctr-dir[:option]"
            )));
        }
    };
    if source.is_some_and(str::is_empty) {
        return Err(Error::value("host directory cannot be empty"));
    }
    let destination = destination(place)?;
    let words: Vec<&str> = options.map(|o| o.split(',').collect()).unwrap_or_default();
    check(&words)?;
    let mut options = effective(&words);
    let source = match source {
        None => Source::Anonymous,
        Some(path) if path.starts_with(['/', '.']) => Source::Bind(cwd.join(path)),
        Some(name) => Source::Volume(volume_name(name)?),
    };
    complete(&mut options, !matches!(source, Source::Bind(_)), true);
    Ok(UserMount {
        source,
        destination,
        options,
        copy: !words.contains(&"nocopy"),
        chown: words.contains(&"U"),
        overlay: words.contains(&"O"),
        ..UserMount::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<UserMount, Error> {
        volume(text, Path::new("/cwd"))
    }

    fn options(text: &str) -> String {
        read(text).unwrap().options.join(",")
    }

    #[test]
    fn sources_and_places() {
        let m = read("/tmp:/a/../b//").unwrap();
        assert_eq!(
            (m.source, m.destination.as_str()),
            (Source::Bind("/tmp".into()), "/b")
        );
        assert_eq!(
            read("./x:/b").unwrap().source,
            Source::Bind("/cwd/./x".into())
        );
        assert_eq!(read("vol:/b").unwrap().source, Source::Volume("vol".into()));
        assert_eq!(read("/b").unwrap().source, Source::Anonymous);
        assert!(read("v:/b").unwrap().copy && !read("v:/b:nocopy").unwrap().copy);
    }

    #[test]
    fn owners_and_overlays() {
        let m = read("/tmp:/b:U,ro").unwrap();
        assert!(m.chown && !m.overlay && m.options.join(",") == "ro,rprivate,rbind");
        assert!(read("v:/b:O").unwrap().overlay && !read("v:/b:z").unwrap().overlay);
    }

    #[test]
    fn options_are_podmans() {
        assert_eq!(options("/tmp:/b"), "rw,rprivate,rbind");
        assert_eq!(options("/tmp:/b:ro"), "ro,rprivate,rbind");
        assert_eq!(options("/tmp:/b:ro,z,shared,bind"), "ro,shared,bind");
        assert_eq!(
            options("/tmp:/b:rw,Z,noexec,nosuid,nodev,rslave"),
            "rw,noexec,nosuid,nodev,rslave,rbind"
        );
        assert_eq!(
            options("/tmp:/b:exec,suid,dev"),
            "exec,suid,dev,rw,rprivate,rbind"
        );
        assert_eq!(options("/tmp:/b:cached"), "rw,rprivate,rbind");
        assert_eq!(options("vol:/b"), "rw,rprivate,nosuid,nodev,rbind");
        assert_eq!(
            options("vol:/b:ro,nocopy"),
            "ro,rprivate,nosuid,nodev,rbind"
        );
        assert_eq!(options("/b"), "rw,rprivate,nosuid,nodev,rbind");
    }

    #[test]
    fn refuses_as_podman_does() {
        let names = "running volume create option: names must match [a-zA-Z0-9][a-zA-Z0-9_.-]*: invalid argument";
        for (text, message) in [
            ("", "container directory cannot be empty".to_string()),
            (":", "host directory cannot be empty".into()),
            (":/b", "host directory cannot be empty".into()),
            ("a:", "container directory cannot be empty".into()),
            ("a", "invalid container path \"a\", must be an absolute path".into()),
            ("/tmp:b", "invalid container path \"b\", must be an absolute path".into()),
            ("/tmp:/", "invalid container path \"/\", nothing can be mounted there".into()),
            ("/tmp:/b/..", "invalid container path \"/b/..\", nothing can be mounted there".into()),
            ("/tmp:/b:xx", "invalid option type \"xx\"".into()),
            ("/tmp:/b:", "invalid option type \"\"".into()),
            ("/tmp:/b:size=3", "invalid option type \"size=3\"".into()),
            ("/tmp:/b:ro,rw", "invalid options \"ro, rw\", can only specify 1 'rw' or 'ro' option".into()),
            ("/tmp:/b:ro,ro", "invalid options \"ro, ro\", can only specify 1 'rw' or 'ro' option".into()),
            ("/tmp:/b:z,Z", "invalid options \"z, Z\", can only specify 1 'z', 'Z', or 'O' option".into()),
            ("v:/b:exec,noexec", "invalid options \"exec, noexec\", can only specify 1 'noexec' or 'exec' option".into()),
            ("/tmp:/b:bind,rbind", "invalid options \"bind, rbind\", can only specify 1 '[r]bind' option".into()),
            (
                "/tmp:/b:shared,slave",
                "invalid options \"shared, slave\", can only specify 1 '[r]shared', '[r]private', '[r]slave' or \
                 '[r]unbindable' option"
                    .into(),
            ),
            ("/tmp:/b:ro:z", "/tmp:/b:ro:z: incorrect volume format, should be [host-dir:]ctr-dir[:option]".into()),
            ("vol/x:/b", format!("creating named volume \"vol/x\": {names}")),
            ("-x:/b", format!("creating named volume \"-x\": {names}")),
            ("vö:/b", format!("creating named volume \"vö\": {names}")),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
