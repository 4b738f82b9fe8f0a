//! `-e`, `--env-file`, `--env-host` and the proxy variables.
//!
//! Only what a *user* writes may take a variable over from the caller's environment (`-e NAME`, `-e PREFIX*`): an image that
//! names a variable without a value gets nothing, or it could read the secrets of whoever runs it.

use std::fs;
use std::path::Path;

use crate::Error;

/// The variables a container is given when the caller has them, upper and lower case (`--http-proxy`).
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"];

/// Reads all `--env-file` files, then all `-e` words; what comes later wins. `host` is the caller's environment.
///
/// # Errors
/// A file that cannot be read, or a variable without a name, with podman's words.
pub fn environment<P: AsRef<Path>>(
    files: &[P],
    words: &[String],
    host: &[(String, String)],
) -> Result<Vec<(String, String)>, Error> {
    let mut env = Vec::new();
    for file in files {
        let name = file.as_ref().display().to_string();
        let failed = |why: String| Error::value(format!("parsing env file {name:?}: {why}"));
        let text = fs::read(file)
            .map_err(|e| failed(format!("open {name}: {}", rcon_sys::errors::in_words(&e))))?;
        let text = String::from_utf8(text).map_err(|_| failed("it is not UTF-8 text".into()))?;
        if text.contains('\0') {
            return Err(failed("it holds a NUL byte".into()));
        }
        for line in text.lines() {
            let line = line.trim_start_matches(WHITE);
            if !line.is_empty() && !line.starts_with('#') {
                one(&mut env, line, host).map_err(|e| failed(e.to_string()))?;
            }
        }
    }
    for word in words {
        one(&mut env, word, host)?;
    }
    Ok(env)
}

/// What the caller's environment hands down: all of it (`--env-host`), or the proxy variables (`--http-proxy`).
pub fn host_environment(
    env_host: bool,
    http_proxy: bool,
    host: &[(String, String)],
) -> Vec<(String, String)> {
    let wanted = |name: &str| {
        env_host
            || http_proxy
                && PROXIES
                    .iter()
                    .any(|p| name == *p || name == p.to_ascii_uppercase().as_str())
    };
    host.iter()
        .filter(|(name, _)| wanted(name))
        .cloned()
        .collect()
}

/// The white space that may stand before a name.
const WHITE: [char; 2] = [' ', '\t'];

fn one(
    env: &mut Vec<(String, String)>,
    word: &str,
    host: &[(String, String)],
) -> Result<(), Error> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let name = name.trim_start_matches(WHITE);
    if name.is_empty() {
        return Err(Error::value(format!(
            "invalid environment variable: {word:?}"
        )));
    }
    match value {
        Some(value) => set(env, name, value),
        None => match name.strip_suffix('*') {
            Some(prefix) => {
                for (name, value) in host.iter().filter(|(n, _)| n.starts_with(prefix)) {
                    set(env, name, value);
                }
            }
            // A variable the caller does not have is left out, silently: that is what podman and docker do.
            None => {
                if let Some((name, value)) = host.iter().find(|(n, _)| n == name) {
                    set(env, name, value);
                }
            }
        },
    }
    Ok(())
}

/// Sets a variable, in the place it already has.
pub(crate) fn set(env: &mut Vec<(String, String)>, name: &str, value: &str) {
    match env.iter_mut().find(|(n, _)| n == name) {
        Some(entry) => entry.1 = value.to_string(),
        None => env.push((name.to_string(), value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect()
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| w.to_string()).collect()
    }

    const NONE: &[&str] = &[];

    #[test]
    fn words_and_the_callers_variables() {
        let host = pairs(&[("USER", "rl"), ("USERDIR", "/u"), ("HOME", "/home/rl")]);
        let env = environment(
            NONE,
            &words(&["A=b=c", "E=", "HOME", "NOPE", "US*", "A=2", " B=y", "A  =x"]),
            &host,
        )
        .unwrap();
        assert_eq!(
            env,
            pairs(&[
                ("A", "2"),
                ("E", ""),
                ("HOME", "/home/rl"),
                ("USER", "rl"),
                ("USERDIR", "/u"),
                ("B", "y"),
                ("A  ", "x")
            ])
        );
    }

    #[test]
    fn refuses_variables_without_a_name() {
        for word in ["=x", "", "=", "  =x"] {
            let error = environment(NONE, &words(&[word]), &[]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("invalid environment variable: {word:?}")
            );
        }
    }

    #[test]
    fn files_come_first_and_keep_what_is_behind_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        fs::write(
            &file,
            "A=1\n# c\n\n  B=2\nX=\"q\"\nexport Y=2\nZ=a #b\nUSER\nNOPE\nW=1\r\n",
        )
        .unwrap();
        let env = environment(&[&file], &words(&["A=3"]), &pairs(&[("USER", "rl")])).unwrap();
        assert_eq!(
            env,
            pairs(&[
                ("A", "3"),
                ("B", "2"),
                ("X", "\"q\""),
                ("export Y", "2"),
                ("Z", "a #b"),
                ("USER", "rl"),
                ("W", "1")
            ])
        );
        fs::write(&file, "A=1\n=x\n").unwrap();
        let shown = file.display().to_string();
        let error = environment(&[&file], &[], &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("parsing env file {shown:?}: invalid environment variable: \"=x\"")
        );
        let error = environment(&["/nope/x"], &[], &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "parsing env file \"/nope/x\": open /nope/x: no such file or directory"
        );
    }

    #[test]
    fn hands_down_what_was_asked_for() {
        let host = pairs(&[
            ("A", "1"),
            ("http_proxy", "p"),
            ("NO_PROXY", "q"),
            ("Http_Proxy", "r"),
        ]);
        assert_eq!(host_environment(true, true, &host), host);
        assert_eq!(
            host_environment(false, true, &host),
            pairs(&[("http_proxy", "p"), ("NO_PROXY", "q")])
        );
        assert!(host_environment(false, false, &host).is_empty());
    }
}
