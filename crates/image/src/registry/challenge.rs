//! `WWW-Authenticate` (RFC 9110 §11.6.1): what a registry wants to see.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// One challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password with each request (RFC 7617).
    Basic,
    /// A token from a third party (distribution's token authentication).
    Bearer {
        /// Where tokens are had.
        realm: String,
        /// Whom they are for.
        service: Option<String>,
        /// What they must allow.
        scope: Option<String>,
    },
}

/// All challenges we understand, in the order given.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(parse)
        .collect()
}

/// The schemes that a `WWW-Authenticate` header offers and that are understood, in its order, and
/// where tokens are had.
pub fn schemes(header: &str) -> Vec<(&'static str, Option<String>)> {
    let named = |challenge: Challenge| match challenge {
        Challenge::Basic => ("basic", None),
        Challenge::Bearer { realm, .. } => ("bearer", Some(realm)),
    };
    parse(header).into_iter().map(named).collect()
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let (scheme, after) = take_word(rest);
        if scheme.is_empty() {
            break;
        }
        let mut parameters = Vec::new();
        rest = after.trim_start_matches([' ', '\t']);
        // `key=value` pairs up to the next word that has no `=`: that is another scheme.
        loop {
            let (key, after) = take_word(rest);
            let Some(value) = after.trim_start().strip_prefix('=') else {
                break;
            };
            if key.is_empty() {
                return found;
            }
            let Some((value, after)) = take_value(value.trim_start()) else {
                return found;
            };
            parameters.push((key.to_ascii_lowercase(), value));
            rest = after.trim_start_matches([' ', '\t', ',']);
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let get = |name: &str| {
            let hit = parameters.iter().find(|(k, _)| k == name);
            hit.map(|(_, v)| v.clone()).filter(|v| !v.is_empty())
        };
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => found.push(Challenge::Basic),
            "bearer" => {
                if let Some(realm) = get("realm") {
                    found.push(Challenge::Bearer {
                        realm,
                        service: get("service"),
                        scope: get("scope"),
                    });
                }
            }
            _ => {}
        }
    }
    found
}

fn take_word(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| c == '=' || c == ',' || c == '"' || c.is_ascii_whitespace())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string, and what follows it.
fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = take_word(text);
        return Some((word.to_owned(), rest));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (i, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[i + 1..])),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ones() {
        assert_eq!(parse("Basic realm=\"Registry Realm\""), [Challenge::Basic]);
        assert_eq!(
            parse(
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:library/alpine:pull,push\",error=\"x\""
            ),
            [Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:library/alpine:pull,push".into()),
            }]
        );
    }

    #[test]
    fn several_and_odd_ones() {
        assert_eq!(
            parse("Negotiate, Basic realm=x, bearer Realm = \"a\\\"b\" , service=s").len(),
            2
        );
        for odd in [
            "",
            ",,,",
            "=",
            "Bearer",
            "Bearer realm=",
            "Bearer realm=\"x",
            "\"",
            "Bearer =x",
        ] {
            assert!(parse(odd).is_empty(), "{odd}");
        }
    }
}
