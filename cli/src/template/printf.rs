//! Go's `printf`, for the kinds that JSON has.

use serde_json::Value;

use super::value::{self, Val};

/// The widest field and the longest precision, in characters.
const WIDEST: usize = 4096;

/// A verb with its flags.
#[derive(Clone, Default)]
struct Verb {
    minus: bool,
    plus: bool,
    zero: bool,
    space: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
}

/// Fills the verbs of `format` in; what is wrong is shown in the text, as Go does.
pub fn printf(format: &str, arguments: &[Val]) -> String {
    let mut reader = Reader {
        letters: format.chars().peekable(),
        arguments,
        next: 0,
        reordered: false,
    };
    let mut out = String::new();
    while let Some(letter) = reader.letters.next() {
        match letter {
            '%' => reader.verb(&mut out),
            letter => out.push(letter),
        }
    }
    // Who picks arguments by number may leave some out.
    if reader.next < arguments.len() && !reader.reordered {
        let extra: Vec<String> = arguments[reader.next..]
            .iter()
            .map(|extra| match extra {
                Some(Value::Null) | None => "<nil>".to_owned(),
                Some(value) => format!("{}={}", value::type_name(value), value::print(extra)),
            })
            .collect();
        out += &format!("%!(EXTRA {})", extra.join(", "));
    }
    out
}

struct Reader<'a> {
    letters: std::iter::Peekable<std::str::Chars<'a>>,
    arguments: &'a [Val],
    next: usize,
    reordered: bool,
}

impl Reader<'_> {
    /// One verb, from behind its `%`.
    fn verb(&mut self, out: &mut String) {
        let mut verb = Verb::default();
        while let Some(flag) = self.letters.next_if(|flag| "-+0 #".contains(*flag)) {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                '0' => verb.zero = true,
                ' ' => verb.space = true,
                _ => verb.sharp = true,
            }
        }
        let mut sound = self.position();
        if self.letters.next_if_eq(&'*').is_some() {
            let width = self.star();
            verb.minus |= width < 0;
            verb.width = bounded(width.unsigned_abs());
            sound &= self.position();
        } else {
            verb.width = self.number().unwrap_or(0);
        }
        if self.letters.next_if_eq(&'.').is_some() {
            sound &= self.position();
            verb.precision = Some(match self.letters.next_if_eq(&'*') {
                Some(_) => bounded(self.star().unsigned_abs()),
                None => self.number().unwrap_or(0),
            });
            sound &= self.position();
        }
        match self.letters.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(name) if !sound => *out += &format!("%!{name}(BADINDEX)"),
            Some(name) => match self.argument() {
                None => *out += &format!("%!{name}(MISSING)"),
                Some(argument) => *out += &verb.format(name, &argument),
            },
        }
    }

    /// `[3]`: the number of the next argument, from 1. Says whether it was none or a good one.
    fn position(&mut self) -> bool {
        if self.letters.next_if_eq(&'[').is_none() {
            return true;
        }
        self.reordered = true;
        let number = self.number();
        let closed = self.letters.next_if_eq(&']').is_some();
        match number {
            Some(number @ 1..) if closed && number <= self.arguments.len() => {
                self.next = number - 1;
                true
            }
            _ => false,
        }
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = None;
        while let Some(digit) = self.letters.next_if(char::is_ascii_digit) {
            let digit = digit.to_digit(10).unwrap_or(0) as usize;
            number = Some((number.unwrap_or(0) * 10 + digit).min(WIDEST));
        }
        number
    }

    fn star(&mut self) -> i64 {
        let argument = self.argument().flatten();
        argument.as_ref().and_then(Value::as_i64).unwrap_or(0)
    }

    fn argument(&mut self) -> Option<Val> {
        let argument = self.arguments.get(self.next).cloned();
        self.next += 1;
        argument
    }
}

fn bounded(number: u64) -> usize {
    usize::try_from(number).unwrap_or(WIDEST).min(WIDEST)
}

impl Verb {
    /// Lists, maps and structs take the verb to each of their elements.
    fn format(&self, name: char, argument: &Val) -> String {
        match argument {
            Some(value) if name == 'T' => self.padded(value::type_name(value).to_owned()),
            Some(Value::Array(items)) => {
                format!(
                    "[{}]",
                    self.each(name, items.iter(), |text, _| text).join(" ")
                )
            }
            Some(Value::Object(object)) if value::prints_as_map(object) => {
                let mut entries: Vec<_> = object.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                let keys = entries
                    .iter()
                    .map(|(key, _)| self.leaf(name, &Some((*key).clone().into())));
                let values = entries
                    .iter()
                    .map(|(_, value)| self.format(name, &Some((*value).clone())));
                let pairs: Vec<String> = keys
                    .zip(values)
                    .map(|(key, value)| format!("{key}:{value}"))
                    .collect();
                format!("map[{}]", pairs.join(" "))
            }
            Some(Value::Object(object)) => {
                let names: Vec<&String> = object.keys().collect();
                let fields = self.each(name, object.values(), |text, at| {
                    match self.plus && name == 'v' {
                        true => format!("{}:{text}", names[at]),
                        false => text,
                    }
                });
                format!("{{{}}}", fields.join(" "))
            }
            _ => self.leaf(name, argument),
        }
    }

    fn each<'a>(
        &self,
        name: char,
        items: impl Iterator<Item = &'a Value>,
        finish: impl Fn(String, usize) -> String,
    ) -> Vec<String> {
        let format =
            |(at, item): (usize, &Value)| finish(self.format(name, &Some(item.clone())), at);
        items.enumerate().map(format).collect()
    }

    fn leaf(&self, name: char, argument: &Val) -> String {
        let plain = || match argument {
            None | Some(Value::Null) => format!("%!{name}(<nil>)"),
            Some(value) => format!(
                "%!{name}({}={})",
                value::type_name(value),
                value::print(argument)
            ),
        };
        let text = match (name, argument) {
            ('v' | 'T', None | Some(Value::Null)) => "<nil>".to_owned(),
            ('v', Some(Value::String(text))) if self.sharp => quote(text, false),
            ('v' | 's', Some(Value::String(text))) => self.cut(text),
            ('v', Some(Value::Number(number))) if !number.is_f64() => self.integer('d', number),
            ('v', Some(Value::Number(number))) => self.float('g', number.as_f64().unwrap_or(0.0)),
            ('v' | 't', Some(Value::Bool(truth))) => truth.to_string(),
            ('q', Some(Value::String(text))) => {
                let text = self.cut(text);
                match self.sharp && !text.contains('`') && !text.contains(char::is_control) {
                    true => format!("`{text}`"),
                    false => quote(&text, self.plus),
                }
            }
            ('q', Some(Value::Number(number))) if !number.is_f64() => {
                let letter = number
                    .as_u64()
                    .and_then(|n| char::from_u32(u32::try_from(n).ok()?));
                let quoted = quote(&letter.unwrap_or('\u{fffd}').to_string(), self.plus);
                let inside = quoted[1..quoted.len() - 1]
                    .replace("\\\"", "\"")
                    .replace('\'', "\\'");
                format!("'{inside}'")
            }
            ('x' | 'X', Some(Value::String(text))) => self.hex(name, &self.cut(text)),
            ('d' | 'b' | 'o' | 'O' | 'x' | 'X' | 'c' | 'U', Some(Value::Number(number)))
                if !number.is_f64() =>
            {
                self.integer(name, number)
            }
            ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Some(Value::Number(number))) if number.is_f64() => {
                self.float(name, number.as_f64().unwrap_or(0.0))
            }
            _ => plain(),
        };
        self.padded(text)
    }

    fn hex(&self, name: char, text: &str) -> String {
        let (upper, prefix) = (name == 'X', if name == 'X' { "0X" } else { "0x" });
        let pairs: Vec<String> = text
            .bytes()
            .map(|byte| {
                if upper {
                    format!("{byte:02X}")
                } else {
                    format!("{byte:02x}")
                }
            })
            .collect();
        match (self.sharp && !text.is_empty(), self.space) {
            (true, true) => format!("{prefix}{}", pairs.join(&format!(" {prefix}"))),
            (true, false) => format!("{prefix}{}", pairs.concat()),
            (false, true) => pairs.join(" "),
            (false, false) => pairs.concat(),
        }
    }

    fn integer(&self, name: char, number: &serde_json::Number) -> String {
        let number = number.as_i128().unwrap_or(0);
        let size = number.unsigned_abs();
        let digits = match name {
            'b' => format!("{}{size:b}", if self.sharp { "0b" } else { "" }),
            'o' => format!("{}{size:o}", if self.sharp { "0" } else { "" }),
            'O' => format!("0o{size:o}"),
            'x' => format!("{}{size:x}", if self.sharp { "0x" } else { "" }),
            'X' => format!("{}{size:X}", if self.sharp { "0X" } else { "" }),
            'c' => {
                let letter = u32::try_from(size).ok().and_then(char::from_u32);
                return letter.unwrap_or('\u{fffd}').to_string();
            }
            'U' => return format!("U+{size:04X}"),
            _ => size.to_string(),
        };
        self.signed(number < 0, digits)
    }

    fn float(&self, name: char, number: f64) -> String {
        let size = number.abs();
        let digits = match (name, self.precision) {
            ('f' | 'F', precision) => format!("{size:.*}", precision.unwrap_or(6)),
            ('e' | 'E', precision) => {
                let text = format!("{size:.*e}", precision.unwrap_or(6));
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let (sign, exponent) = exponent
                    .strip_prefix('-')
                    .map_or(('+', exponent), |rest| ('-', rest));
                format!("{digits}e{sign}{exponent:0>2}")
            }
            _ => value::float_text(size),
        };
        let digits = if name.is_uppercase() {
            digits.to_uppercase()
        } else {
            digits
        };
        self.signed(number < 0.0, digits)
    }

    fn signed(&self, negative: bool, digits: String) -> String {
        let sign = match negative {
            true => "-",
            false if self.plus => "+",
            false if self.space => " ",
            false => "",
        };
        let zeros = match self.zero && !self.minus {
            true => self
                .width
                .saturating_sub(sign.len() + digits.chars().count()),
            false => 0,
        };
        format!("{sign}{}{digits}", "0".repeat(zeros))
    }

    fn cut(&self, text: &str) -> String {
        match self.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.to_owned(),
        }
    }

    fn padded(&self, text: String) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        match self.minus {
            true => text + &" ".repeat(missing),
            false => " ".repeat(missing) + &text,
        }
    }
}

/// A string as a Go literal; `ascii` escapes all that is not ASCII.
fn quote(text: &str, ascii: bool) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ' '..='~' => out.push(letter),
            low if low < '\u{80}' => out += &format!("\\x{:02x}", u32::from(low)),
            // Rust's own escapes tell what cannot be printed.
            other if !ascii && other.escape_debug().count() == 1 => out.push(other),
            other if u32::from(other) < 0x1_0000 => out += &format!("\\u{:04x}", u32::from(other)),
            other => out += &format!("\\U{:08x}", u32::from(other)),
        }
    }
    out.push('"');
    out
}
