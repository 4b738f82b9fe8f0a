//! `--change`: instructions as in a Containerfile, applied to a configuration.
//!
//! `KEY VALUE` and `KEY=VALUE` are the same, as with `podman import`; lists may be given as JSON.

use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// Signals an image may name; numbers are taken too.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Apply one change to the `config` object of an image configuration.
pub(crate) fn apply(config: &mut Map<String, Value>, change: &str) -> Result<()> {
    let err = |why: &str| Error::Change {
        change: change.to_owned(),
        why: why.to_owned(),
    };
    let text = change.trim();
    let end = text
        .find(|c: char| c == '=' || c.is_ascii_whitespace())
        .ok_or_else(|| err("must be formatted as KEY VALUE"))?;
    let key = text[..end].to_ascii_uppercase();
    let value = text[end + 1..].trim();
    let known = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "LABEL",
        "USER",
        "WORKDIR",
        "VOLUME",
        "STOPSIGNAL",
        "ONBUILD",
    ];
    if !known.contains(&key.as_str()) {
        return Err(err(&format!("invalid instruction {key}")));
    }
    if value.is_empty() && !matches!(key.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(err("must be formatted as KEY VALUE"));
    }
    match key.as_str() {
        "CMD" => set(config, "Cmd", command(value)),
        "ENTRYPOINT" => set(config, "Entrypoint", command(value)),
        "ENV" => {
            for (name, value) in pairs(value, true).map_err(|w| err(&w))? {
                set_env(config, &name, &value);
            }
        }
        "EXPOSE" => {
            for word in value.split_ascii_whitespace() {
                let port = port(word).map_err(|w| err(&w))?;
                insert(config, "ExposedPorts", &port, json!({}));
            }
        }
        "LABEL" => {
            for (name, value) in pairs(value, false).map_err(|w| err(&w))? {
                insert(config, "Labels", &name, value.into());
            }
        }
        "USER" => set(config, "User", value.into()),
        "WORKDIR" => {
            let dir = if value.starts_with('/') {
                value.to_owned()
            } else {
                // Relative to the one before.
                let base = config
                    .get("WorkingDir")
                    .and_then(Value::as_str)
                    .unwrap_or("/");
                format!("{}/{value}", base.trim_end_matches('/'))
            };
            set(config, "WorkingDir", dir.into());
        }
        "VOLUME" => {
            for path in json_list(value).unwrap_or_else(|| words(value)) {
                if path.trim().is_empty() {
                    return Err(err("VOLUME must name a path"));
                }
                insert(config, "Volumes", &path, json!({}));
            }
        }
        "STOPSIGNAL" => {
            let bare = value.to_ascii_uppercase();
            let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
            let known = SIGNALS.contains(&bare)
                || bare.starts_with("RTMIN")
                || bare.starts_with("RTMAX")
                || value.parse::<u8>().is_ok_and(|n| (1..=64).contains(&n));
            if !known {
                return Err(err(&format!("invalid signal: {value}")));
            }
            set(config, "StopSignal", value.into());
        }
        _ => {
            let list = config.entry("OnBuild").or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(value.into());
            }
        }
    }
    Ok(())
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

fn insert(config: &mut Map<String, Value>, key: &str, name: &str, value: Value) {
    let map = config.entry(key).or_insert_with(|| json!({}));
    if let Some(map) = map.as_object_mut() {
        map.insert(name.to_owned(), value);
    }
}

fn set_env(config: &mut Map<String, Value>, name: &str, value: &str) {
    let list = config.entry("Env").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else {
        return;
    };
    let prefix = format!("{name}=");
    list.retain(|e| !e.as_str().is_some_and(|e| e.starts_with(&prefix)));
    list.push(format!("{prefix}{value}").into());
}

/// JSON, or the text for a shell.
fn command(value: &str) -> Value {
    if value.is_empty() {
        return json!([]);
    }
    match json_list(value) {
        Some(list) => list.into(),
        None => json!(["/bin/sh", "-c", value]),
    }
}

fn json_list(value: &str) -> Option<Vec<String>> {
    serde_json::from_str(value).ok()
}

/// `80`, `80/tcp`, `53/udp`, `8000-8002`.
fn port(word: &str) -> Result<String, String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |p: &str| p.parse::<u16>().ok().filter(|p| *p > 0);
    match (number(first), number(last)) {
        (Some(a), Some(b)) if a <= b => {}
        _ => return Err(format!("EXPOSE port must be an integer: {word:?}")),
    }
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("unknown protocol in {word:?}"));
    }
    Ok(format!("{ports}/{protocol}"))
}

/// `K=V K2="V 2"`; for ENV also the old form `K V and all the rest`.
fn pairs(value: &str, old_form: bool) -> Result<Vec<(String, String)>, String> {
    let parts = words(value);
    let split = |part: &String| {
        let (name, value) = part.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    if let Some(all) = parts.iter().map(split).collect::<Option<Vec<_>>>() {
        return Ok(all);
    }
    let first = parts.first().map(String::as_str).unwrap_or_default();
    if old_form && !first.is_empty() && !first.contains('=') {
        return Ok(match value.split_once(|c: char| c.is_ascii_whitespace()) {
            Some((name, rest)) => vec![(name.to_owned(), rest.trim().to_owned())],
            None => vec![(value.to_owned(), String::new())],
        });
    }
    Err("must be formatted key=value".to_owned())
}

/// Words as a shell splits them: quotes, and backslash for the next character.
fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\\', q) if q != Some('\'') => {
                if let Some(next) = chars.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => all.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(changes: &[&str]) -> Value {
        let mut config = Map::new();
        for change in changes {
            apply(&mut config, change).unwrap();
        }
        Value::Object(config)
    }

    #[test]
    fn what_podman_takes() {
        assert_eq!(
            with(&["CMD [\"/bin/sh\", \"-c\"]"]),
            json!({"Cmd": ["/bin/sh", "-c"]})
        );
        assert_eq!(
            with(&["cmd=/bin/x y"]),
            json!({"Cmd": ["/bin/sh", "-c", "/bin/x y"]})
        );
        assert_eq!(
            with(&["ENTRYPOINT a", "ENTRYPOINT [\"b\"]"]),
            json!({"Entrypoint": ["b"]})
        );
        assert_eq!(
            with(&[
                "ENV A=1 B=\"2 3\"",
                "ENV C hello world",
                "ENV=D=x=y",
                "ENV A=9",
                "ENV E"
            ]),
            json!({"Env": ["B=2 3", "C=hello world", "D=x=y", "A=9", "E="]})
        );
        assert_eq!(
            with(&["EXPOSE 80 53/UDP", "EXPOSE=8000-8002"]),
            json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000-8002/tcp": {}}})
        );
        assert_eq!(
            with(&["LABEL a=\"b c\" d=e\\ f"]),
            json!({"Labels": {"a": "b c", "d": "e f"}})
        );
        assert_eq!(
            with(&["WORKDIR /a", "WORKDIR b"]),
            json!({"WorkingDir": "/a/b"})
        );
        assert_eq!(
            with(&["VOLUME [\"/a\", \"/b c\"]", "VOLUME /d /e"])["Volumes"]
                .as_object()
                .unwrap()
                .len(),
            4
        );
        assert_eq!(
            with(&["USER 1:2", "STOPSIGNAL SIGQUIT", "ONBUILD RUN x"]),
            json!({"User": "1:2", "StopSignal": "SIGQUIT", "OnBuild": ["RUN x"]})
        );
    }

    #[test]
    fn what_podman_refuses() {
        for bad in [
            "FOO bar",
            "CMD",
            "ENV",
            "EXPOSE a",
            "EXPOSE 0",
            "EXPOSE 1/x",
            "LABEL x",
            "LABEL =x",
            "run x",
            "WORKDIR",
            "USER ",
            "STOPSIGNAL FOO",
            "STOPSIGNAL 99",
            "HEALTHCHECK NONE",
            "",
            "ENV =x",
        ] {
            assert!(apply(&mut Map::new(), bad).is_err(), "{bad}");
        }
    }
}
