//! The YAML 1.2 core schema: what a plain scalar means.
//!
//! Unlike YAML 1.1, `on`, `off`, `yes` and `no` are text, and so is `52:54:00:00:00:01`.

use std::sync::Arc;

use super::Value;

/// The value of a plain (unquoted) scalar (YAML 1.2.2, section 10.3.2).
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    // Most scalars are words; only these bytes begin a number.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Value::String(Arc::from(text));
    }
    number(text).unwrap_or_else(|| Value::String(Arc::from(text)))
}

fn number(text: &str) -> Option<Value> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let valid = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
            return valid.then(|| i128::from_str_radix(digits, radix).map_or(Value::Float(f64::INFINITY), Value::Int));
        }
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return Some(match text.parse::<i128>() {
            Ok(number) => Value::Int(number),
            // Too large for any use; the text stays in the file.
            Err(_) => Value::Float(f64::INFINITY),
        });
    }
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Some(Value::Float(f64::INFINITY)),
        ".nan" | ".NaN" | ".NAN" if unsigned.len() == text.len() => return Some(Value::Float(f64::NAN)),
        _ => {}
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|e| {
        let digits_of = e.strip_prefix(['-', '+']).unwrap_or(e);
        !digits_of.is_empty() && digits(digits_of)
    });
    let valid = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && exponent_fits;
    valid.then(|| Value::Float(text.parse().unwrap_or(f64::NAN)))
}
