//! Go's `printf`, for the kinds that JSON has.

use serde_json::Value;

use super::value::{self, Val};

/// The widest field, in characters.
const WIDEST: usize = 4096;

/// A verb with its flags.
#[derive(Default)]
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
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = letters.next_if(|flag| "-+0 #".contains(*flag)) {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                '0' => verb.zero = true,
                ' ' => verb.space = true,
                _ => verb.sharp = true,
            }
        }
        let mut number = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| -> usize {
            if letters.next_if_eq(&'*').is_some() {
                let star = arguments.next().cloned().flatten();
                return star
                    .and_then(|star| star.as_u64())
                    .map_or(0, |n| (n as usize).min(WIDEST));
            }
            let mut number = 0;
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                number = (number * 10 + digit.to_digit(10).unwrap_or(0) as usize).min(WIDEST);
            }
            number
        };
        verb.width = number(&mut letters);
        if letters.next_if_eq(&'.').is_some() {
            verb.precision = Some(number(&mut letters));
        }
        match letters.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(name) => match arguments.next() {
                None => out += &format!("%!{name}(MISSING)"),
                Some(argument) => out += &verb.padded(verb.format(name, argument)),
            },
        }
    }
    let extra: Vec<String> = arguments
        .map(|extra| {
            format!(
                "{}={}",
                extra.as_ref().map_or("nil", value::type_name),
                value::print(extra)
            )
        })
        .collect();
    if !extra.is_empty() {
        out += &format!("%!(EXTRA {})", extra.join(", "));
    }
    out
}

impl Verb {
    fn format(&self, name: char, argument: &Val) -> String {
        let wrong = || {
            let kind = argument.as_ref().map_or("nil", value::type_name);
            format!("%!{name}({kind}={})", value::print(argument))
        };
        match (name, argument) {
            ('v', Some(Value::Number(number))) if number.is_i64() || number.is_u64() => {
                self.integer('d', argument)
            }
            ('v', _) => value::print(argument),
            ('T', _) => argument
                .as_ref()
                .map_or("<nil>", value::type_name)
                .to_owned(),
            ('t', Some(Value::Bool(truth))) => truth.to_string(),
            ('s', Some(Value::Number(_) | Value::Bool(_))) => wrong(),
            ('s', _) => self.cut(value::print(argument)),
            ('q', Some(Value::String(text))) => format!("{:?}", self.cut(text.clone())),
            ('q', Some(Value::Array(items))) => {
                let quoted: Vec<String> = items
                    .iter()
                    .map(|item| self.format('q', &Some(item.clone())))
                    .collect();
                format!("[{}]", quoted.join(" "))
            }
            ('x' | 'X', Some(Value::String(text))) => {
                let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
                if name == 'X' {
                    digits.to_uppercase()
                } else {
                    digits
                }
            }
            ('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 'U', Some(Value::Number(number)))
                if !number.is_f64() =>
            {
                self.integer(name, argument)
            }
            ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Some(Value::Number(number))) if number.is_f64() => {
                self.float(name, number.as_f64().unwrap_or(0.0))
            }
            _ => wrong(),
        }
    }

    fn integer(&self, name: char, argument: &Val) -> String {
        let number = argument
            .as_ref()
            .and_then(|v| v.as_i64().map(i128::from).or(v.as_u64().map(i128::from)))
            .unwrap_or(0);
        let size = number.unsigned_abs();
        let digits = match name {
            'b' => format!("{size:b}"),
            'o' => format!("{}{size:o}", if self.sharp { "0" } else { "" }),
            'x' => format!("{}{size:x}", if self.sharp { "0x" } else { "" }),
            'X' => format!("{}{size:X}", if self.sharp { "0X" } else { "" }),
            'c' => u32::try_from(size)
                .ok()
                .and_then(char::from_u32)
                .unwrap_or('\u{fffd}')
                .to_string(),
            'U' => format!("U+{size:04X}"),
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
        self.signed(
            number < 0.0,
            if name.is_uppercase() {
                digits.to_uppercase()
            } else {
                digits
            },
        )
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

    fn cut(&self, text: String) -> String {
        match self.precision {
            Some(most) => text.chars().take(most).collect(),
            None => text,
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
