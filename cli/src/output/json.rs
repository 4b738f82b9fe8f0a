//! JSON with the indents podman uses.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

/// The text of `value`, each level `indent` spaces deeper, with an end of line.
pub fn pretty(value: &Value, indent: usize) -> String {
    let spaces = vec![b' '; indent];
    let mut out = Vec::new();
    let mut serializer =
        Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(&spaces));
    // Writing a value to memory cannot fail.
    let written: Result<(), io::Error> = value.serialize(&mut serializer).map_err(Into::into);
    debug_assert!(written.is_ok());
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indents() {
        let value = serde_json::json!([{"a": [], "b": {}, "c": "<&>"}]);
        assert_eq!(
            pretty(&value, 5),
            "[\n     {\n          \"a\": [],\n          \"b\": {},\n          \"c\": \"<&>\"\n     }\n]\n"
        );
    }
}
