//! Every hint that the program can print is in a table of docs/troubleshooting.md, in its own words, and none that it cannot print.
//!
//! The hints are read from the sources: what is given to a parameter, a field or a variable of the name `hint`, what a function with
//! that word in its name has in it, and what the functions and constants say that are called there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// As much of Rust as is needed to find texts.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

use Token::{Mark, Text, Word};

/// The tokens of a source file, without comments, lifetimes, single characters and tests.
fn tokens(source: &str) -> Vec<Token> {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
    let letters: Vec<char> = source.chars().collect();
    let at = |place: usize| letters.get(place).copied().unwrap_or('\n');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut found, mut here) = (Vec::new(), 0);
    while here < letters.len() {
        let from = here;
        match letters[here] {
            '/' if at(here + 1) == '/' => {
                while at(here) != '\n' {
                    here += 1;
                }
            }
            '"' => {
                here += 1;
                while at(here) != '"' {
                    here += 1 + usize::from(at(here) == '\\');
                }
                let inner: String = letters[from + 1..here].iter().collect();
                found.push(Text(unescaped(&inner)));
                here += 1;
            }
            '\'' if at(here + 1) == '\\' => {
                here += 3;
                while at(here) != '\'' {
                    here += 1;
                }
                here += 1;
            }
            '\'' => here += if at(here + 2) == '\'' { 3 } else { 1 },
            c if word(c) => {
                while word(at(here)) {
                    here += 1;
                }
                let name: String = letters[from..here].iter().collect();
                let fence = letters[here..].iter().take_while(|c| **c == '#').count();
                if ["r", "br"].contains(&name.as_str()) && at(here + fence) == '"' {
                    let end = format!("\"{}", "#".repeat(fence));
                    let rest: String = letters[here + fence + 1..].iter().collect();
                    let inner = rest.split(&end).next().unwrap();
                    here += fence + 1 + inner.chars().count() + end.len();
                    found.push(Text(inner.to_owned()));
                } else {
                    found.push(Word(name));
                }
            }
            c => {
                here += 1;
                if !c.is_whitespace() {
                    found.push(Mark(c));
                }
            }
        }
    }
    found
}

fn unescaped(literal: &str) -> String {
    let mut letters = literal.chars().peekable();
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('\n') => while letters.next_if(|c| c.is_whitespace()).is_some() {},
            Some('n') => text.push('\n'),
            Some(other) => text.push(other),
            None => {}
        }
    }
    text
}

/// Where the bracket that opens at `open` closes.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Mark('(' | '[' | '{') => depth += 1,
            Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// The end of the expression at `from`: a comma, a semicolon or the end of what it is in.
fn expression(tokens: &[Token], from: usize) -> &[Token] {
    let mut end = from;
    while end < tokens.len() && !matches!(tokens[end], Mark(',' | ';' | ')' | ']' | '}')) {
        let opens = matches!(tokens[end], Mark('(' | '[' | '{'));
        end = if opens { closing(tokens, end) } else { end } + 1;
    }
    &tokens[from..end.min(tokens.len())]
}

/// The arguments in the brackets that open at `open`.
fn arguments(tokens: &[Token], open: usize) -> Vec<&[Token]> {
    let inside = &tokens[open + 1..closing(tokens, open)];
    let (mut found, mut from) = (Vec::new(), 0);
    while from < inside.len() {
        let argument = expression(inside, from);
        from += argument.len() + 1;
        found.push(argument);
    }
    found
}

/// A file, and what it defines.
struct Source {
    path: PathBuf,
    tokens: Vec<Token>,
}

impl Source {
    /// The module's name.
    fn module(&self) -> &str {
        let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
        match name(&self.path).as_str() {
            "mod" => self.path.parent().unwrap().file_name().unwrap(),
            _ => self.path.file_stem().unwrap(),
        }
        .to_str()
        .unwrap()
    }

    /// Its functions: names, where their arguments begin and their bodies.
    fn functions(&self) -> Vec<(&str, usize, &[Token])> {
        let tokens = &self.tokens;
        let starts = (0..tokens.len()).filter(|at| tokens[*at] == Word("fn".into()));
        let function = |at: usize| {
            let Some(Word(name)) = tokens.get(at + 1) else {
                return None;
            };
            let open = at + tokens[at..].iter().position(|t| *t == Mark('('))?;
            let after = closing(tokens, open);
            let body = after
                + tokens[after..]
                    .iter()
                    .position(|t| matches!(t, Mark('{' | ';')))?;
            Some((
                name.as_str(),
                open,
                &tokens[body..closing(tokens, body).max(body)],
            ))
        };
        starts.filter_map(function).collect()
    }

    fn constant(&self, name: &str) -> Option<String> {
        let at = self
            .tokens
            .windows(2)
            .position(|pair| pair == [Word("const".into()), Word(name.into())])?;
        let text = self.tokens[at..]
            .iter()
            .take_while(|token| **token != Mark(';'));
        text.into_iter().find_map(|token| match token {
            Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A format with `…` for what is filled in, but for the constants of this file.
    fn shown(&self, format: &str) -> String {
        let (mut text, mut rest) = (String::new(), format);
        while let Some(at) = rest.find(['{', '}']) {
            text += &rest[..at];
            let (brace, after) = rest[at..].split_at(1);
            if after.starts_with(brace) {
                text += brace;
                rest = &after[1..];
                continue;
            }
            let (name, after) = after.split_once('}').unwrap();
            text += &self.constant(name).unwrap_or_else(|| "…".into());
            rest = after;
        }
        text + rest
    }
}

/// Everything that is linked into the program.
fn sources(top: &Path) -> Vec<Source> {
    let crates = std::fs::read_dir(top.join("crates")).unwrap();
    let mut folders = vec![top.join("cli/src")];
    folders.extend(crates.map(|entry| entry.unwrap().path().join("src")));
    rust_files(folders)
        .into_iter()
        .map(|path| Source {
            tokens: tokens(&std::fs::read_to_string(&path).unwrap()),
            path,
        })
        .collect()
}

/// All Rust files in these folders and below.
pub fn rust_files(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// What makes a word of a text.
fn is_said(letter: char) -> bool {
    letter.is_alphabetic() || letter == '{'
}

/// The hints in the order of their letters, each with the file that has it.
fn hints(sources: &[Source]) -> BTreeMap<String, PathBuf> {
    let hint = |token: &Token| matches!(token, Word(name) if name == "hint");
    // Which argument of which functions is a hint; `self` is none.
    let mut takers: BTreeSet<(&str, usize)> = BTreeSet::new();
    for source in sources {
        for (name, open, _) in source.functions() {
            let parameters = arguments(&source.tokens, open);
            let parameters = parameters
                .iter()
                .filter(|parameter| !parameter.contains(&Word("self".into())));
            if let Some(at) = parameters
                .into_iter()
                .position(|parameter| hint(&parameter[0]))
            {
                takers.insert((name, at));
            }
        }
    }
    // What is to be looked through: parts of files.
    let mut parts: Vec<(usize, &[Token])> = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let tokens = &source.tokens;
        for (name, _, body) in source.functions() {
            if name.contains("hint") {
                parts.push((index, body));
            }
        }
        for at in 1..tokens.len() {
            let (Word(name), before) = (&tokens[at], &tokens[at - 1]) else {
                continue;
            };
            let next = tokens.get(at + 1);
            if name == "hint" && (next == Some(&Mark(':')) || *before == Word("let".into())) {
                parts.push((index, expression(tokens, at + 2)));
            }
            if next == Some(&Mark('(')) && *before != Word("fn".into()) {
                for (_, position) in takers.iter().filter(|(taker, _)| taker == name) {
                    let given = arguments(tokens, at + 1);
                    parts.extend(given.get(*position).map(|part| (index, *part)));
                }
            }
        }
    }
    for (index, part) in &parts {
        if let [Word(_), Mark('('), Word(variable), Mark('.' | ')'), ..] = part {
            let named = variable == "hint" || variable.chars().any(char::is_uppercase);
            let made = part.len() > 4
                && !["into", "to_owned", "to_string"]
                    .iter()
                    .any(|end| part[4] == Word((*end).into()));
            let path = sources[*index].path.display();
            assert!(
                named || made,
                "{path}: call what has a hint `hint`: {variable}"
            );
        }
    }
    let mut found = BTreeMap::new();
    let mut seen: BTreeSet<(usize, String)> = BTreeSet::new();
    while let Some((index, part)) = parts.pop() {
        let source = &sources[index];
        for (at, token) in part.iter().enumerate() {
            match token {
                Text(text) => {
                    // Names of files and settings are none, nor are the patterns of a match.
                    let after = &part[at + 1..];
                    let pattern = after.starts_with(&[Mark('|')])
                        || after.starts_with(&[Mark('='), Mark('>')]);
                    let words = text
                        .split(' ')
                        .filter(|word| word.contains(is_said))
                        .count();
                    if words < 2 || pattern {
                        continue;
                    }
                    let format =
                        part[..at].ends_with(&[Word("format".into()), Mark('!'), Mark('(')]);
                    let text = match format {
                        true => source.shown(text),
                        false => text.clone(),
                    };
                    found.insert(text, source.path.clone());
                }
                Word(name) if name.chars().all(|c| c.is_uppercase() || c == '_') => {
                    let text = source.constant(name).filter(|text| text.contains(' '));
                    found.extend(text.map(|text| (text, source.path.clone())));
                }
                Word(name) if part.get(at + 1) == Some(&Mark('(')) => {
                    // Of this file, or of the module that is named.
                    let (owner, own) = match &part[..at] {
                        [.., Word(module), Mark(':'), Mark(':')] => (module.as_str(), false),
                        [.., Mark('.')] => continue,
                        _ => ("", true),
                    };
                    for (other, there) in sources.iter().enumerate() {
                        let here = if own {
                            other == index
                        } else {
                            there.module() == owner
                        };
                        if here && seen.insert((other, name.clone())) {
                            let bodies = there.functions();
                            let named = bodies.into_iter().filter(|(of, ..)| of == name);
                            parts.extend(named.map(|(.., body)| (other, body)));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// A row of a table of docs/troubleshooting.md whose head begins with "hint".
struct Row {
    hint: String,
    errors: Vec<String>,
    line: String,
}

/// What is in code in a cell, as it is printed.
fn in_code(cell: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = cell;
    while let Some(at) = rest.find('`') {
        let quote = if rest[at..].starts_with("``") {
            "``"
        } else {
            "`"
        };
        let (text, after) = rest[at + quote.len()..].split_once(quote).unwrap();
        found.push(text.trim().replace("\\|", "|"));
        rest = after;
    }
    found
}

fn rows(page: &str) -> Vec<Row> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        let Some(cells) = line.strip_prefix("| ") else {
            inside &= line.starts_with('|');
            continue;
        };
        let cells: Vec<&str> = cells.trim_end_matches(" |").split(" | ").collect();
        if cells[0] == "hint" {
            inside = true;
        } else if inside {
            assert!(cells.len() >= 2, "a hint and its error: {line}");
            let mut hint = in_code(cells[0]);
            assert_eq!(hint.len(), 1, "a hint stands in code: {line}");
            found.push(Row {
                hint: hint.remove(0),
                errors: in_code(cells[1]),
                line: line.to_owned(),
            });
        }
    }
    found
}

/// `page` without what is printed, but for what is said there to be typed: what hints have in code.
pub fn without_messages(page: &str) -> String {
    let line = |line: &str| match line.split(" | ").collect::<Vec<_>>()[..] {
        [hint, _, about] if hint.starts_with("| `` ") => format!("{hint} | {about}"),
        [hint, _, about] if hint.starts_with("| `") => about.to_owned(),
        _ => line.to_owned(),
    };
    page.lines().map(|text| line(text) + "\n").collect()
}

fn page() -> (PathBuf, Vec<Row>) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(top.join("docs/troubleshooting.md")).unwrap();
    (top, rows(&page))
}

#[test]
fn hints_are_explained() {
    let (top, rows) = page();
    let sources = sources(&top);
    let hints = hints(&sources);
    assert!(hints.len() > 70, "{}", hints.len());
    let missing: Vec<String> = hints
        .iter()
        .filter(|(hint, _)| !rows.iter().any(|row| row.hint == **hint))
        .map(|(hint, path)| format!("{}: {hint}", path.strip_prefix(&top).unwrap().display()))
        .collect();
    let gone: Vec<&str> = rows
        .iter()
        .filter(|row| !hints.contains_key(&row.hint))
        .map(|row| row.line.as_str())
        .collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "docs/troubleshooting.md has no row for these hints:\n{}\nand rows for what is no hint:\n{}",
        missing.join("\n"),
        gone.join("\n")
    );
}

/// The errors that the page puts beside the hints are those that there are.
#[test]
fn errors_beside_hints_are_there() {
    let (top, rows) = page();
    let mut said = String::new();
    for source in sources(&top) {
        for token in source.tokens {
            if let Text(text) = token {
                said += &text.to_lowercase();
                said.push('\n');
            }
        }
    }
    // The system's own words.
    for number in 1..134 {
        said += &nix::errno::Errno::from_raw(number).desc().to_lowercase();
        said.push('\n');
    }
    let mut checked = 0;
    for row in &rows {
        for error in &row.errors {
            for part in error.split('…').flat_map(|part| part.split(": ")) {
                let part = part.trim_matches([' ', ':', '"']).to_lowercase();
                assert!(
                    said.contains(&part),
                    "no message has {part:?}: {}",
                    row.line
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 70, "{checked}");
}
