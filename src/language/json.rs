//! JSON text as Go's encoder writes it, which is what minimega's clients see: `<` `>` `&` U+2028 U+2029 escaped, no
//! blanks, whole floats without a fraction.
//!
//! Must not know what it encodes.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::Formatter;

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut start = 0;
        for (at, c) in fragment.char_indices() {
            let escape = match c {
                '<' => "\\u003c",
                '>' => "\\u003e",
                '&' => "\\u0026",
                '\u{2028}' => "\\u2028",
                '\u{2029}' => "\\u2029",
                _ => continue,
            };
            writer.write_all(&fragment.as_bytes()[start..at])?;
            writer.write_all(escape.as_bytes())?;
            start = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[start..])
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let size = value.abs();
        if size != 0.0 && !(1e-6..1e21).contains(&size) {
            // Rust writes 1e21, Go 1e+21; both write 1e-7.
            let text = format!("{value:e}");
            return match text.split_once('e') {
                Some((digits, exponent)) if !exponent.starts_with('-') => write!(writer, "{digits}e+{exponent}"),
                _ => writer.write_all(text.as_bytes()),
            };
        }
        write!(writer, "{value}")
    }
}

/// The JSON text of a value. Values with maps whose keys are not text cannot occur in this crate's types.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, GoFormatter);
    value.serialize(&mut serializer).expect("the wire's types have text keys and write into memory");
    String::from_utf8(out).expect("the serializer writes UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_it() {
        assert_eq!(to_json("<a> & \"b\"\u{2028}é\u{1}\t\u{8}"), r#""\u003ca\u003e \u0026 \"b\"\u2028é\u0001\t\b""#);
        assert_eq!(
            to_json(&[0.0, 1.0, 1.5, 1e20, 1e21, 1.5e-7, -2.0]),
            "[0,1,1.5,100000000000000000000,1e+21,1.5e-7,-2]"
        );
        assert_eq!(to_json(&serde_json::json!({"b": null, "a": [true]})), r#"{"b":null,"a":[true]}"#);
    }
}
