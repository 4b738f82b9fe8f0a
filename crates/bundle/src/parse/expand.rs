//! `--env-merge`: text with variables in it, as a shell would read it.

/// Puts the values of `env` in the place of `$NAME`, `${NAME}`, `${NAME:-WORD}` and `${NAME:+WORD}`.
///
/// A backslash takes the meaning from what follows it, single quotes from all between them; quotes themselves go.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = rest.next() {
        match c {
            '\'' if !quoted => out.extend(rest.by_ref().take_while(|c| *c != '\'')),
            '"' => quoted = !quoted,
            '\\' => out.extend(rest.next()),
            '$' if rest.peek() == Some(&'{') => {
                rest.next();
                let inner: String = rest.by_ref().take_while(|c| *c != '}').collect();
                out += &braced(&inner, env);
            }
            '$' => {
                let mut name = String::new();
                while let Some(c) = rest
                    .peek()
                    .filter(|c| c.is_ascii_alphanumeric() || **c == '_')
                {
                    name.push(*c);
                    rest.next();
                }
                match name.is_empty() {
                    true => out.push('$'),
                    false => out += value(&name, env),
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn value<'a>(name: &str, env: &'a [(String, String)]) -> &'a str {
    env.iter()
        .find(|(known, _)| known == name)
        .map_or("", |(_, value)| value)
}

fn braced(inner: &str, env: &[(String, String)]) -> String {
    let (name, rest) = inner.split_once(':').unwrap_or((inner, ""));
    let value = value(name, env);
    match (rest.get(..1), value.is_empty()) {
        (Some("-"), true) => expand(&rest[1..], env),
        (Some("+"), false) => expand(&rest[1..], env),
        (Some("+"), true) => String::new(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_shell_reads_it() {
        let env = [
            ("A".to_string(), "1".to_string()),
            ("E".into(), String::new()),
        ];
        for (text, expanded) in [
            ("X=$A", "X=1"),
            ("X=${A}2", "X=12"),
            ("X=$NONE.", "X=."),
            ("X=${E:-d}${A:-d}", "X=d1"),
            ("X=${E:+s}${A:+s$A}", "X=s1"),
            ("X=\\$A '$A' \"$A\"", "X=$A $A 1"),
            ("X=$ ${", "X=$ "),
            ("a\\", "a"),
        ] {
            assert_eq!(expand(text, &env), expanded, "{text}");
        }
    }
}
