//! `--mount`: `type=bind|volume|tmpfs|image` and the fields of each.

use std::path::Path;

use super::words::{PROPAGATION, complete, destination, subpath, volume_name};
use super::{Source, UserMount, tmpfs};
use crate::Error;

/// Reads `type=bind|volume|tmpfs|image,KEY[=VALUE],…`, comma-separated as in a CSV file (a field may be quoted).
///
/// Relative sources of binds are taken from `cwd`. Whether a path exists is checked when the container is built.
///
/// # Errors
/// podman's messages.
pub fn mount(text: &str, cwd: &Path) -> Result<UserMount, Error> {
    let fields = split(text)?;
    let kind = fields
        .iter()
        .find_map(|f| f.strip_prefix("type="))
        .ok_or_else(|| {
            Error::value(
                "incorrect mount format: should be --mount \
             type=<bind|tmpfs|volume>,[src=<host-dir|volume-name>,]target=<ctr-dir>[,options]",
            )
        })?;
    let mut asked = Asked {
        kind: Kind::parse(kind)?,
        ..Asked::default()
    };
    for field in fields.iter().filter(|f| !f.starts_with("type=")) {
        match field.split_once('=') {
            Some((key, value)) => asked.field(key, Some(value))?,
            None => asked.field(field, None)?,
        }
    }
    asked.finish(cwd)
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Bind,
    Volume,
    Tmpfs,
    Image,
}

impl Kind {
    fn parse(text: &str) -> Result<Kind, Error> {
        match text {
            "bind" => Ok(Kind::Bind),
            "volume" => Ok(Kind::Volume),
            "tmpfs" => Ok(Kind::Tmpfs),
            "image" => Ok(Kind::Image),
            other => Err(Error::value(format!("invalid filesystem type {other:?}"))),
        }
    }
}

/// What has been read so far.
#[derive(Default)]
struct Asked {
    kind: Kind,
    source: Option<String>,
    destination: Option<String>,
    /// Options for the kernel, without those that are completed at the end.
    words: Vec<String>,
    nocopy: bool,
    relabelled: bool,
    chown: bool,
    subpath: Option<String>,
}

impl Asked {
    fn field(&mut self, key: &str, value: Option<&str>) -> Result<(), Error> {
        let unknown = || Error::value(format!("{key}: invalid mount option"));
        let needs = || Error::value(format!("{key}: must provide an argument for option"));
        match key {
            "src" | "source" => {
                let value = value.ok_or_else(needs)?;
                if self.kind == Kind::Tmpfs {
                    return Err(Error::value("source is not supported with tmpfs mounts"));
                }
                if value.is_empty() {
                    return Err(Error::value(
                        "host directory cannot be empty: must provide an argument for option",
                    ));
                }
                self.source = Some(value.to_string());
            }
            "target" | "dst" | "destination" => {
                self.destination = Some(destination(value.ok_or_else(needs)?)?)
            }
            "ro" | "readonly" | "rw" => self.access(key, value)?,
            "nosuid" | "suid" => self.exclusive(key, ["nosuid", "suid"])?,
            "nodev" | "dev" => self.exclusive(key, ["nodev", "dev"])?,
            "noexec" | "exec" => self.exclusive(key, ["noexec", "exec"])?,
            // Docker for Mac's cache modes mean nothing here, as they mean nothing to podman.
            "consistency" => {}
            "U" | "chown" => {
                self.chown = truth(value).ok_or_else(|| not_a_truth("'U' or 'chown'", value))?;
            }
            _ => match self.kind {
                Kind::Bind => self.bind_field(key, value)?,
                Kind::Volume => self.volume_field(key, value)?,
                Kind::Image => match key {
                    "readwrite" => self.access("rw", value)?,
                    "subpath" | "image-subpath" => {
                        self.subpath = Some(subpath(value.ok_or_else(needs)?)?);
                    }
                    _ => return Err(unknown()),
                },
                Kind::Tmpfs => match (key, value) {
                    ("tmpcopyup" | "notmpcopyup", _) => self.words.push(key.to_string()),
                    ("tmpfs-size", Some(size)) => self.words.push(format!("size={size}")),
                    ("tmpfs-mode", Some(mode)) => self.words.push(format!("mode={mode}")),
                    ("tmpfs-size" | "tmpfs-mode", None) => return Err(needs()),
                    _ => return Err(unknown()),
                },
            },
        }
        Ok(())
    }

    fn bind_field(&mut self, key: &str, value: Option<&str>) -> Result<(), Error> {
        let unknown = || Error::value(format!("{key}: invalid mount option"));
        match key {
            "bind-nonrecursive" => {
                if truth(value).ok_or_else(|| not_a_truth("'bind-nonrecursive'", value))? {
                    self.words.push("bind".into());
                }
            }
            "bind-propagation" => {
                let value = value.ok_or_else(|| {
                    Error::value(format!("{key}: must provide an argument for option"))
                })?;
                if !PROPAGATION.contains(&value) {
                    return Err(Error::value(format!("invalid option type {value:?}")));
                }
                self.propagation(value)?;
            }
            key if PROPAGATION.contains(&key) => self.propagation(key)?,
            "relabel" => match value {
                Some("private" | "shared") => self.relabel()?,
                _ => {
                    return Err(Error::value(
                        "relabel mount option must be 'private' or 'shared': invalid mount option",
                    ));
                }
            },
            "z" | "Z" => self.relabel()?,
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn volume_field(&mut self, key: &str, value: Option<&str>) -> Result<(), Error> {
        match key {
            "z" | "Z" => self.relabel()?,
            "subpath" | "volume-subpath" => {
                let value = value.ok_or_else(|| {
                    Error::value(format!("{key}: must provide an argument for option"))
                })?;
                self.subpath = Some(subpath(value)?);
            }
            "nocopy" => self.nocopy = true,
            "copy" => self.nocopy = false,
            // Docker's spelling.
            "volume-nocopy" => {
                self.nocopy = truth(value).ok_or_else(|| not_a_truth("'volume-nocopy'", value))?;
            }
            "volume-label" => {
                return Err(Error::value(
                    "the --volume-label option is not presently implemented",
                ));
            }
            "volume-opt" => {
                return Err(Error::value(
                    "volume-opt: volumes have no drivers and no driver options",
                ));
            }
            _ => return Err(Error::value(format!("{key}: invalid mount option"))),
        }
        Ok(())
    }

    fn access(&mut self, key: &str, value: Option<&str>) -> Result<(), Error> {
        let yes = truth(value).ok_or_else(|| not_a_truth("'readonly', 'ro', or 'rw'", value))?;
        if self.words.iter().any(|w| w == "ro" || w == "rw") {
            return Err(Error::value(
                "cannot pass 'readonly', 'ro', or 'rw' options more than once: must provide an argument for option",
            ));
        }
        self.words
            .push(if yes == (key == "rw") { "rw" } else { "ro" }.to_string());
        Ok(())
    }

    fn exclusive(&mut self, key: &str, pair: [&str; 2]) -> Result<(), Error> {
        if self.words.iter().any(|w| pair.contains(&w.as_str())) {
            return Err(Error::value(format!(
                "cannot pass '{}' and '{}' options more than once: must provide an argument for option",
                pair[0], pair[1]
            )));
        }
        self.words.push(key.to_string());
        Ok(())
    }

    fn propagation(&mut self, word: &str) -> Result<(), Error> {
        if self.words.iter().any(|w| PROPAGATION.contains(&w.as_str())) {
            return Err(Error::value(
                "cannot pass more than one propagation option: invalid mount option",
            ));
        }
        self.words.push(word.to_string());
        Ok(())
    }

    /// Labels are SELinux's; without it there is nothing to do, but once is enough all the same.
    fn relabel(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.relabelled, true) {
            true => Err(Error::value(
                "cannot pass 'relabel' option more than once: must provide an argument for option",
            )),
            false => Ok(()),
        }
    }

    fn finish(self, cwd: &Path) -> Result<UserMount, Error> {
        let destination = self
            .destination
            .ok_or_else(|| Error::value("must set volume destination"))?;
        let mut options = self.words;
        let source = match (self.kind, self.source) {
            (Kind::Tmpfs, _) => {
                let options = tmpfs::finish(options)?;
                return Ok(UserMount {
                    source: Source::Tmpfs,
                    destination,
                    options,
                    chown: self.chown,
                    ..UserMount::default()
                });
            }
            (Kind::Image, Some(_)) if self.chown => {
                return Err(Error::value("U: invalid mount option"));
            }
            (Kind::Image, Some(name)) => {
                // Read-only unless the opposite is said.
                if !options.iter().any(|word| word == "rw") {
                    options.retain(|word| word != "ro");
                    options.push("ro".into());
                }
                Source::Image(name)
            }
            (Kind::Image, None) => {
                return Err(Error::value(
                    "must set source and destination for image volume",
                ));
            }
            (Kind::Bind, source) => {
                Source::Bind(cwd.join(source.as_deref().unwrap_or(&destination)))
            }
            (Kind::Volume, Some(name)) => Source::Volume(volume_name(&name)?),
            (Kind::Volume, None) => Source::Anonymous,
        };
        let image = self.kind == Kind::Image;
        complete(&mut options, self.kind == Kind::Volume || image, !image);
        Ok(UserMount {
            source,
            destination,
            options,
            copy: !self.nocopy && !image,
            chown: self.chown,
            subpath: self.subpath,
            ..UserMount::default()
        })
    }
}

/// A flag that may stand alone.
fn truth(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => None,
    }
}

fn not_a_truth(what: &str, value: Option<&str>) -> Error {
    Error::value(format!(
        "{what} must be set to true or false, instead received {:?}: must provide an argument for option",
        value.unwrap_or_default()
    ))
}

/// Splits one line of a CSV file (RFC 4180).
fn split(text: &str) -> Result<Vec<String>, Error> {
    let bad = || {
        Error::value(format!(
            "invalid mount {text:?}: a quote is not closed or stands inside a field"
        ))
    };
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(mut inside) => {
                let mut field = String::new();
                loop {
                    let (part, after) = inside.split_once('"').ok_or_else(bad)?;
                    field.push_str(part);
                    match after.strip_prefix('"') {
                        // Two quotes are one.
                        Some(more) => {
                            field.push('"');
                            inside = more;
                        }
                        None => break (field, after),
                    }
                }
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(bad());
                }
                (rest[..end].to_string(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(fields),
            None => return Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<UserMount, Error> {
        mount(text, Path::new("/cwd"))
    }

    fn options(text: &str) -> String {
        read(text).unwrap().options.join(",")
    }

    #[test]
    fn binds() {
        let m = read("type=bind,src=/tmp,dst=/b").unwrap();
        assert_eq!(
            (m.source, m.destination.as_str()),
            (Source::Bind("/tmp".into()), "/b")
        );
        assert_eq!(
            read("type=bind,source=tmp,target=/b").unwrap().source,
            Source::Bind("/cwd/tmp".into())
        );
        assert_eq!(
            read("type=bind,dst=/b").unwrap().source,
            Source::Bind("/b".into())
        );
        assert_eq!(
            read("src=/tmp,type=bind,\"dst=/b,c\"").unwrap().destination,
            "/b,c"
        );
        assert_eq!(options("type=bind,src=/tmp,dst=/b"), "rw,rprivate,rbind");
        for ro in ["ro", "ro=true", "readonly", "readonly=true", "rw=false"] {
            assert_eq!(
                options(&format!("type=bind,src=/tmp,dst=/b,{ro}")),
                "ro,rprivate,rbind"
            );
        }
        assert_eq!(
            options("type=bind,src=/tmp,dst=/b,ro,bind-propagation=shared,relabel=shared"),
            "ro,shared,rbind"
        );
        assert_eq!(
            options("type=bind,src=/tmp,dst=/b,bind-nonrecursive"),
            "bind,rw,rprivate"
        );
        assert_eq!(
            options("type=bind,src=/tmp,dst=/b,nosuid,nodev,noexec=true"),
            "nosuid,nodev,noexec,rw,rprivate,rbind"
        );
        assert_eq!(
            options("type=bind,src=/tmp,dst=/b,consistency=cached,Z,U=false"),
            "rw,rprivate,rbind"
        );
    }

    #[test]
    fn volumes_and_memory() {
        let m = read("type=volume,source=v1,target=/b,ro").unwrap();
        assert_eq!(m.source, Source::Volume("v1".into()));
        assert_eq!(m.options.join(","), "ro,rprivate,nosuid,nodev,rbind");
        assert_eq!(
            read("type=volume,dst=/b").unwrap().source,
            Source::Anonymous
        );
        assert!(
            !read("type=volume,src=v,dst=/b,volume-nocopy=true")
                .unwrap()
                .copy
        );
        assert_eq!(
            options("type=tmpfs,dst=/b,tmpfs-size=10m,tmpfs-mode=1777,ro"),
            "size=10m,mode=1777,ro,rprivate,nosuid,nodev,tmpcopyup"
        );
        assert_eq!(
            options("type=tmpfs,dst=/b,notmpcopyup"),
            "rw,rprivate,nosuid,nodev"
        );
    }

    #[test]
    fn images_and_parts() {
        let m = read("type=image,src=alpine,dst=/b").unwrap();
        assert_eq!(m.source, Source::Image("alpine".into()));
        assert_eq!(m.options.join(","), "ro,rprivate,nosuid,nodev");
        assert_eq!(
            options("type=image,src=a,dst=/b,readwrite=true"),
            "rw,rprivate,nosuid,nodev"
        );
        for part in ["subpath", "image-subpath"] {
            let m = read(&format!("type=image,src=a,dst=/b,{part}=/etc/x")).unwrap();
            assert_eq!(m.subpath.as_deref(), Some("etc/x"));
        }
        let m = read("type=volume,src=v,dst=/b,volume-subpath=d,U=true").unwrap();
        assert!(m.chown && m.subpath.as_deref() == Some("d"));
        assert!(read("type=tmpfs,dst=/b,chown").unwrap().chown);
        assert!(!read("type=bind,src=/tmp,dst=/b,U=false").unwrap().chown);
    }

    #[test]
    fn refuses_as_podman_does() {
        let format = "incorrect mount format: should be --mount \
                      type=<bind|tmpfs|volume>,[src=<host-dir|volume-name>,]target=<ctr-dir>[,options]";
        for (text, message) in [
            ("", format),
            ("type", format),
            ("src=/tmp,dst=/b", format),
            ("type=", "invalid filesystem type \"\""),
            ("type=foo,dst=/b", "invalid filesystem type \"foo\""),
            ("type=bind", "must set volume destination"),
            ("type=bind,src=/tmp", "must set volume destination"),
            (
                "type=bind,src=/tmp,dst=b",
                "invalid container path \"b\", must be an absolute path",
            ),
            (
                "type=bind,src=/tmp,dst=",
                "container directory cannot be empty",
            ),
            (
                "type=bind,src=,dst=/b",
                "host directory cannot be empty: must provide an argument for option",
            ),
            (
                "type=bind,source",
                "source: must provide an argument for option",
            ),
            ("type=bind,src=/tmp,dst=/b,xx", "xx: invalid mount option"),
            ("type=bind,src=/tmp,dst=/b,xx=1", "xx: invalid mount option"),
            (
                "type=bind,src=/tmp,dst=/b,ro=maybe",
                "'readonly', 'ro', or 'rw' must be set to true or false, instead received \"maybe\": must provide an \
                 argument for option",
            ),
            (
                "type=bind,src=/tmp,dst=/b,ro,rw",
                "cannot pass 'readonly', 'ro', or 'rw' options more than once: must provide an argument for option",
            ),
            (
                "type=bind,src=/tmp,dst=/b,noexec,exec",
                "cannot pass 'noexec' and 'exec' options more than once: must provide an argument for option",
            ),
            (
                "type=bind,src=/tmp,dst=/b,bind-propagation=foo",
                "invalid option type \"foo\"",
            ),
            (
                "type=bind,src=/tmp,dst=/b,relabel=foo",
                "relabel mount option must be 'private' or 'shared': invalid mount option",
            ),
            (
                "type=volume,src=v,dst=/b,volume-label=x=y",
                "the --volume-label option is not presently implemented",
            ),
            (
                "type=tmpfs,src=/x,dst=/b",
                "source is not supported with tmpfs mounts",
            ),
            (
                "type=tmpfs,dst=/b,tmpfs-size",
                "tmpfs-size: must provide an argument for option",
            ),
            ("type=tmpfs,dst=/b,size=1", "size: invalid mount option"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), message, "{text}");
        }
        for text in [
            "type=bind,\"src=/tmp,dst=/b",
            "type=bind,src=\"/tmp\",dst=/b",
            "type=bind,\"src=/tmp\"x,dst=/b",
            "type=image,src=i,dst=/b,U",
            "type=image,dst=/b",
            "type=image,src=i,dst=/b,rw,ro",
            "type=volume,src=v,dst=/b,subpath=a/../..",
            "type=volume,src=v,dst=/b,subpath=",
            "type=bind,src=/tmp,dst=/b,subpath=a",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
