//! Messages out of a stream of bytes. JSON-RPC over a stream has no separators: a message is one JSON object and ends with
//! its closing brace.

use std::io;

use serde_json::Value;

/// Collects bytes and gives messages.
#[derive(Debug)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// How many of them were looked at.
    seen: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
    limit: usize,
}

impl Frames {
    /// No message may be longer than `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), seen: 0, depth: 0, in_text: false, escaped: false, limit }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message; None if more bytes are needed. After an error the stream is of no use any more.
    pub(super) fn next(&mut self) -> io::Result<Option<Value>> {
        if self.depth == 0 {
            let blank = self.bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.bytes.drain(..blank);
            self.seen = 0;
        }
        while let Some(&byte) = self.bytes.get(self.seen) {
            self.seen += 1;
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' if self.depth > 0 => self.in_text = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 0 => self.depth -= 1,
                _ if self.depth == 0 => {
                    let start = String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(80)]).into_owned();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, start));
                }
                _ => {}
            }
            if self.depth == 0 {
                let message = serde_json::from_slice(&self.bytes[..self.seen]);
                self.bytes.drain(..self.seen);
                self.seen = 0;
                return message
                    .map(Some)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()));
            }
        }
        if self.bytes.len() > self.limit {
            let text = format!("a message of more than {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(frames: &mut Frames) -> io::Result<Vec<Value>> {
        std::iter::from_fn(|| frames.next().transpose()).collect()
    }

    #[test]
    fn braces_in_texts_do_not_count() {
        let mut frames = Frames::new(1000);
        frames.push(br#" {"a":"}{\"]\\"} {"b":["{",{}]}{"c"#);
        assert_eq!(
            all(&mut frames).unwrap(),
            [serde_json::json!({"a": "}{\"]\\"}), serde_json::json!({"b": ["{", {}]})]
        );
        frames.push(b"\":1}");
        assert_eq!(all(&mut frames).unwrap(), [serde_json::json!({"c": 1})]);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for text in ["x", "}", "\"text\"", "1", "{]", "{\"a\"}", "{\"a\":\u{1}}"] {
            let mut frames = Frames::new(1000);
            frames.push(text.as_bytes());
            assert!(all(&mut frames).is_err(), "{text}");
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let mut frames = Frames::new(1 << 20);
        frames.push(deep.as_bytes());
        assert!(all(&mut frames).is_err());
    }

    #[test]
    fn a_message_has_a_limit() {
        let mut frames = Frames::new(100);
        frames.push(b"{\"a\":\"");
        for _ in 0..100 {
            frames.push(b"aaaaaaaaaa");
            if let Err(error) = frames.next() {
                assert_eq!(error.to_string(), "a message of more than 100 bytes");
                return;
            }
        }
        panic!("it grows without end");
    }

    proptest! {
        /// However a stream is cut, the same messages come out.
        #[test]
        fn cuts_do_not_matter(texts in prop::collection::vec(".{0,20}", 0..6), cuts in prop::collection::vec(1usize..9, 1..20)) {
            let messages: Vec<Value> =
                texts.iter().map(|text| serde_json::json!({"id": 1, text: ["set", [text, {"x": text}]]})).collect();
            let bytes: Vec<u8> = messages.iter().flat_map(|message| message.to_string().into_bytes()).collect();
            let mut frames = Frames::new(1 << 20);
            let mut found = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                frames.push(piece);
                found.extend(all(&mut frames).unwrap());
            }
            prop_assert_eq!(found, messages);
        }

        /// Any bytes end in messages, an error or a wait for more; never in a panic.
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(prop::sample::select(b"{}[]\"\\:, a1\xff\n".to_vec()), 0..200)) {
            let mut frames = Frames::new(100);
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next() {}
        }
    }
}
