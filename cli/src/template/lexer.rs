//! From text to tokens.

use super::TemplateError;

/// A token and where it begins.
#[derive(Clone, Debug)]
pub struct Token {
    pub kind: TokenKind,
    /// Byte offset in the template.
    pub at: usize,
    /// Byte offset behind it.
    pub end: usize,
    /// White space stands before it: `.A .B` are two operands, `.A.B` is one.
    pub spaced: bool,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenKind {
    /// Text outside of actions.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A word: keyword, function, `true`, `false`, `nil`.
    Word(String),
    /// `.Name`
    Field(String),
    /// `.` alone
    Dot,
    /// `$` or `$name`
    Variable(String),
    /// A string, quoted or raw.
    Quoted(String),
    Integer(i64),
    Float(f64),
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Pipe,
    Comma,
    OpenParen,
    CloseParen,
}

/// White space as Go's templates know it.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Cuts `text` into tokens.
pub fn tokens(name: &str, text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer {
        name,
        text,
        at: 0,
        out: Vec::new(),
    };
    lexer.run()?;
    Ok(lexer.out)
}

/// The line, from 1, of a byte offset.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|&&byte| byte == b'\n')
        .count()
        + 1
}

struct Lexer<'a> {
    name: &'a str,
    text: &'a str,
    at: usize,
    out: Vec<Token>,
}

impl Lexer<'_> {
    fn error<T>(&self, what: impl AsRef<str>) -> Result<T, TemplateError> {
        let line = line_of(self.text, self.at);
        Err(TemplateError(format!(
            "{}:{line}: {}",
            self.name,
            what.as_ref()
        )))
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, kind: TokenKind, length: usize, spaced: bool) {
        let at = self.at;
        self.at += length;
        self.out.push(Token {
            kind,
            at,
            end: self.at,
            spaced,
        });
    }

    fn run(&mut self) -> Result<(), TemplateError> {
        let mut trim = false;
        while self.at < self.text.len() {
            let rest = self.rest();
            let open = rest.find("{{").unwrap_or(rest.len());
            let action = rest.get(open + 2..).unwrap_or_default();
            let mut shown = &rest[..open];
            if std::mem::take(&mut trim) {
                shown = shown.trim_start_matches(SPACE);
            }
            let trims_left = action.starts_with('-') && action[1..].starts_with(SPACE);
            if trims_left {
                shown = shown.trim_end_matches(SPACE);
            }
            let (shown, more) = (shown.to_owned(), open < rest.len());
            if !shown.is_empty() {
                self.out.push(Token {
                    kind: TokenKind::Text(shown),
                    at: self.at,
                    end: self.at,
                    spaced: false,
                });
            }
            self.at += open;
            if !more {
                break;
            }
            let skip = if trims_left { 2 } else { 0 };
            let inside = self.text[self.at + 2 + skip..].trim_start_matches(SPACE);
            if inside.starts_with("/*") {
                trim = self.comment(skip)?;
            } else {
                self.push(TokenKind::Open, 2 + skip, false);
                trim = self.action()?;
            }
        }
        Ok(())
    }

    /// `{{/* … */}}`: says whether what follows is to be trimmed.
    fn comment(&mut self, skip: usize) -> Result<bool, TemplateError> {
        let body = &self.text[self.at + 2 + skip..];
        let Some(end) = body.find("*/") else {
            return self.error("unclosed comment");
        };
        let after = &body[end + 2..];
        let (length, trim) = if after.starts_with("}}") {
            (2, false)
        } else if after.trim_start_matches(SPACE).starts_with("-}}") && after.starts_with(SPACE) {
            (after.find("-}}").unwrap_or(0) + 3, true)
        } else {
            return self.error("comment ends before closing delimiter");
        };
        self.at += 2 + skip + end + 2 + length;
        Ok(trim)
    }

    /// The tokens of one action, to its `}}`; says whether what follows is to be trimmed.
    fn action(&mut self) -> Result<bool, TemplateError> {
        loop {
            let rest = self.rest();
            let space = rest.len() - rest.trim_start_matches(SPACE).len();
            let spaced = space > 0;
            self.at += space;
            let rest = self.rest();
            if spaced && rest.starts_with("-}}") {
                self.push(TokenKind::Close, 3, spaced);
                return Ok(true);
            }
            if rest.starts_with("}}") {
                self.push(TokenKind::Close, 2, spaced);
                return Ok(false);
            }
            let Some(first) = rest.chars().next() else {
                return self.error("unclosed action");
            };
            match first {
                '|' => self.push(TokenKind::Pipe, 1, spaced),
                ',' => self.push(TokenKind::Comma, 1, spaced),
                '(' => self.push(TokenKind::OpenParen, 1, spaced),
                ')' => self.push(TokenKind::CloseParen, 1, spaced),
                '=' => self.push(TokenKind::Assign, 1, spaced),
                ':' if rest.starts_with(":=") => self.push(TokenKind::Declare, 2, spaced),
                '"' => self.quoted(spaced)?,
                '`' => self.raw(spaced)?,
                '\'' => self.character(spaced)?,
                '$' => {
                    let length = 1 + word_length(&rest[1..]);
                    let name = rest[..length].to_owned();
                    self.push(TokenKind::Variable(name), length, spaced);
                }
                '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    let length = word_length(&rest[1..]);
                    let kind = match length {
                        0 => TokenKind::Dot,
                        _ => TokenKind::Field(rest[1..=length].to_owned()),
                    };
                    self.push(kind, 1 + length, spaced);
                }
                '0'..='9' | '.' | '+' | '-' => self.number(spaced)?,
                letter if letter.is_alphabetic() || letter == '_' => {
                    let length = word_length(rest);
                    let word = rest[..length].to_owned();
                    self.push(TokenKind::Word(word), length, spaced);
                }
                other => return self.error(format!("unexpected {other:?} in command")),
            }
        }
    }

    fn quoted(&mut self, spaced: bool) -> Result<(), TemplateError> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find_map(|(at, letter)| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends.then_some(at)
        });
        let Some(end) = end.filter(|&end| !rest[..end].contains('\n')) else {
            return self.error("unterminated quoted string");
        };
        let Some(text) = unescape(&rest[1..end]) else {
            return self.error("invalid syntax");
        };
        self.push(TokenKind::Quoted(text), end + 1, spaced);
        Ok(())
    }

    fn raw(&mut self, spaced: bool) -> Result<(), TemplateError> {
        let rest = self.rest();
        let Some(length) = rest[1..].find('`') else {
            return self.error("unterminated raw quoted string");
        };
        let text = rest[1..=length].to_owned();
        self.push(TokenKind::Quoted(text), length + 2, spaced);
        Ok(())
    }

    /// `'x'`: a number, as in Go.
    fn character(&mut self, spaced: bool) -> Result<(), TemplateError> {
        let rest = self.rest();
        let from = if rest[1..].starts_with('\\') { 3 } else { 1 };
        let end = rest
            .char_indices()
            .skip(1)
            .find(|&(at, letter)| letter == '\'' && at >= from);
        let Some((end, _)) = end else {
            return self.error("unterminated character constant");
        };
        let inside = unescape(&rest[1..end]).unwrap_or_default();
        let mut letters = inside.chars();
        let (Some(letter), None) = (letters.next(), letters.next()) else {
            return self.error(format!("malformed character constant: {}", &rest[..=end]));
        };
        self.push(
            TokenKind::Integer(u32::from(letter).into()),
            end + 1,
            spaced,
        );
        Ok(())
    }

    fn number(&mut self, spaced: bool) -> Result<(), TemplateError> {
        let rest = self.rest();
        let mut before = ' ';
        let length = rest
            .find(|letter: char| {
                let sign = matches!(letter, '+' | '-') && matches!(before, ' ' | 'e' | 'E');
                before = letter;
                !(letter.is_ascii_alphanumeric() || letter == '.' || letter == '_' || sign)
            })
            .unwrap_or(rest.len());
        let text = rest[..length].to_owned();
        match parse_number(&text) {
            Some(kind) => {
                self.push(kind, length, spaced);
                Ok(())
            }
            None => self.error(format!("bad number syntax: {text:?}")),
        }
    }
}

/// The length of a name: letters, digits and underscores.
fn word_length(text: &str) -> usize {
    text.find(|letter: char| !(letter.is_alphanumeric() || letter == '_'))
        .unwrap_or(text.len())
}

fn parse_number(text: &str) -> Option<TokenKind> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1
            && lower.starts_with('0')
            && lower.bytes().all(|b| b.is_ascii_digit()) =>
        {
            (8, &lower[1..])
        }
        _ => (10, lower.as_str()),
    };
    if let Ok(number) = i64::from_str_radix(body, radix)
        && !body.starts_with(['+', '-'])
    {
        return Some(TokenKind::Integer(sign * number));
    }
    if lower.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: f64 = (lower.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
        .then(|| lower.parse().ok())??;
    Some(TokenKind::Float(f64::from(sign as i32) * number))
}

/// The escapes of Go's interpreted string literals.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        let escape = letters.next()?;
        let mut code = |length: usize, radix: u32, first: Option<char>| -> Option<char> {
            let digits: String = first
                .into_iter()
                .chain(letters.by_ref().take(length))
                .collect();
            char::from_u32(u32::from_str_radix(&digits, radix).ok()?)
        };
        out.push(match escape {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '\\' | '"' | '\'' => escape,
            'x' => code(2, 16, None)?,
            'u' => code(4, 16, None)?,
            'U' => code(8, 16, None)?,
            '0'..='7' => code(2, 8, Some(escape))?,
            _ => return None,
        });
    }
    Some(out)
}
