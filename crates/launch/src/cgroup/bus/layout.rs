//! How messages of D-Bus are laid out (the D-Bus specification, "Message Protocol").

/// No answer that we ask for is longer.
const MOST: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// A value in a message.
#[derive(Clone, Debug)]
pub(in crate::cgroup) enum Value {
    Text(String),
    Bool(bool),
    Number(u32),
    Long(u64),
    /// The alignment of its elements, and these.
    Array(usize, Vec<Value>),
    Struct(Vec<Value>),
    /// Its signature, and itself.
    Variant(&'static str, Box<Value>),
}

/// A method call.
pub(in crate::cgroup) struct Call {
    pub path: &'static str,
    pub destination: &'static str,
    pub interface: &'static str,
    pub member: &'static str,
    pub signature: &'static str,
    pub body: Vec<Value>,
}

/// A message that came in: what of it anybody here looks at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: u8,
    pub answers: u32,
    pub member: String,
    pub error: String,
    /// The texts in its body, in their order.
    pub texts: Vec<String>,
}

/// How many bytes follow the first sixteen of a message.
pub(super) fn rest_length(fixed: &[u8; 16]) -> Option<usize> {
    if fixed[0] != b'l' {
        return None;
    }
    let number = |at: usize| {
        let bytes = <[u8; 4]>::try_from(&fixed[at..at + 4]).ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (body, fields) = (number(4)?, number(12)?);
    if body > MOST || fields > MOST {
        return None;
    }
    Some(fields.next_multiple_of(8) + body)
}

impl Call {
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer(Vec::new());
        self.body.iter().for_each(|value| body.value(value));
        let mut out = Writer(vec![b'l', METHOD_CALL, 0, 1]);
        out.number(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
        out.number(serial);
        let field = |code: u8, signature: &'static str, text: &str| {
            let value = match signature {
                "g" => Value::Variant("g", Box::new(Value::Text(text.to_owned()))),
                signature => Value::Variant(signature, Box::new(Value::Text(text.to_owned()))),
            };
            (code, value)
        };
        let mut fields = vec![
            field(1, "o", self.path),
            field(2, "s", self.interface),
            field(3, "s", self.member),
            field(6, "s", self.destination),
        ];
        if !self.signature.is_empty() {
            fields.push(field(8, "g", self.signature));
        }
        out.counted(8, |out| {
            for (code, value) in &fields {
                out.align(8);
                out.0.push(*code);
                out.value(value);
            }
        });
        out.align(8);
        out.0.extend(body.0);
        out.0
    }
}

/// Puts values behind one another, each where its alignment wants it.
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(0));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// What `fill` writes, with its length in front.
    fn counted(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.number(0);
        let place = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[place..place + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
                self.0.extend(text.as_bytes());
                self.0.push(0);
            }
            Value::Bool(value) => self.number(u32::from(*value)),
            Value::Number(number) => self.number(*number),
            Value::Long(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Array(alignment, values) => self.counted(*alignment, |out| {
                values.iter().for_each(|value| out.value(value));
            }),
            Value::Struct(values) => {
                self.align(8);
                values.iter().for_each(|value| self.value(value));
            }
            Value::Variant(signature, value) => {
                self.signature(signature);
                match (&**value, *signature) {
                    (Value::Text(text), "g") => self.signature(text),
                    (value, _) => self.value(value),
                }
            }
        }
    }
}

/// Takes values from a message; `None` wherever there is no such value.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let text = self.take(length.checked_add(1)?)?;
        String::from_utf8(text[..length].to_vec()).ok()
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let text = self.take(length + 1)?;
        String::from_utf8(text[..length].to_vec()).ok()
    }
}

impl Message {
    pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
        let mut reader = Reader { bytes, at: 12 };
        let mut message = Message {
            kind: *bytes.get(1)?,
            ..Message::default()
        };
        let length = usize::try_from(reader.number()?).ok()?;
        let end = reader.at.checked_add(length)?;
        let mut body = String::new();
        while reader.at < end {
            reader.align(8);
            let code = reader.byte()?;
            let signature = reader.signature()?;
            match (code, signature.as_str()) {
                (5, "u") => message.answers = reader.number()?,
                (3, "s") => message.member = reader.text()?,
                (4, "s") => message.error = reader.text()?,
                (8, "g") => body = reader.signature()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.number()?),
                _ => return None,
            }
        }
        reader.align(8);
        // What comes after the first value of another kind is nothing we look at.
        for kind in body.chars() {
            match kind {
                's' | 'o' => message.texts.push(reader.text()?),
                'u' | 'i' | 'b' => drop(reader.number()?),
                _ => break,
            }
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let call = super::super::broker("AddMatch", "s", vec![Value::Text("abc".into())]);
        let bytes = call.encode(7);
        assert_eq!(&bytes[..12], [b'l', 1, 0, 1, 8, 0, 0, 0, 7, 0, 0, 0]);
        let fields = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), (16 + fields).next_multiple_of(8) + 8);
        assert_eq!(&bytes[16..20], [1, 1, b'o', 0]);
        assert_eq!(&bytes[bytes.len() - 8..], b"\x03\0\0\0abc\0");
        assert_eq!(
            rest_length(bytes[..16].try_into().unwrap()),
            Some(bytes.len() - 16)
        );
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(
            (message.member.as_str(), &message.texts[..]),
            ("AddMatch", &["abc".to_owned()][..])
        );
    }

    #[test]
    fn structures_are_aligned() {
        let mut writer = Writer(Vec::new());
        let pair = Value::Struct(vec![
            Value::Text("A".into()),
            Value::Variant("t", Box::new(Value::Long(1))),
        ]);
        writer.value(&Value::Array(8, vec![pair]));
        let expected = [
            &[24, 0, 0, 0][..], // the array's length
            &[0; 4],            // up to its first element
            &[1, 0, 0, 0, b'A', 0],
            &[1, b't', 0],
            &[0; 7],
            &[1, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(writer.0, expected.concat());
    }

    #[test]
    fn noise_is_refused() {
        assert_eq!(rest_length(&[0xff; 16]), None);
        assert_eq!(
            rest_length(b"l\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0"),
            None
        );
        let whole = super::super::broker("Hello", "", Vec::new()).encode(1);
        for cut in 0..whole.len() {
            let _ = Message::decode(&whole[..cut]);
            let mut bent = whole.clone();
            bent[cut] ^= 0xff;
            let _ = Message::decode(&bent);
        }
    }
}
