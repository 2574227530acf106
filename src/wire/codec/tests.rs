use proptest::prelude::*;

use super::*;

const RECORDED: &[&str] =
    &[include_str!("../../../tests/data/exchanges.jsonl"), include_str!("../../../tests/data/exchanges-mesh.jsonl")];

/// All rows but those of the two connections that had become pipes (`n` is 0 there).
fn recorded() -> impl Iterator<Item = serde_json::Value> {
    let rows = RECORDED.iter().flat_map(|r| r.lines()).map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    rows.filter(|row| row["n"] != 0)
}

fn decode_all(pieces: &[&[u8]]) -> Result<Vec<Request>, DecodeError> {
    let mut decoder = RequestDecoder::new();
    let mut requests = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        while let Some(request) = decoder.next_request()? {
            requests.push(request);
        }
    }
    Ok(requests)
}

#[test]
fn every_recorded_response_comes_back_byte_for_byte() {
    let mut count = 0;
    for row in recorded() {
        for line in row["responses"].as_array().unwrap() {
            let line = line.as_str().unwrap();
            if line == "<eof>" {
                continue;
            }
            let response: Response = serde_json::from_str(line).unwrap();
            assert_eq!(encode_response(&response), line, "row {}", row["n"]);
            count += 1;
        }
    }
    assert!(count > 400, "{count}");
}

#[test]
fn every_recorded_request_decodes_or_closes_as_recorded() {
    for row in recorded() {
        let text = row["request"].as_str().unwrap();
        let decoded = decode_all(&[text.as_bytes()]);
        // Row 1000 killed the daemon; it was a good request.
        let closes = row["eof"] == true && row["n"] != 1000;
        assert_eq!(decoded.is_err(), closes, "row {}: {text}: {decoded:?}", row["n"]);
        if let Ok(requests) = decoded {
            assert!(!requests.is_empty(), "row {}: {text}", row["n"]);
        }
    }
}

#[test]
fn values_are_found_when_complete() {
    let command = |c: &str| Request { command: c.into(), ..Request::default() };
    assert_eq!(decode_all(&[br#"{"Command":"version"}"#]).unwrap(), [command("version")]);
    assert_eq!(
        decode_all(&[br#" {"cOMMAND":"a"}{"Command":"b","X":[1,{"y":null}]} null"#]).unwrap(),
        [command("a"), command("b"), Request::default()]
    );
    assert_eq!(
        decode_all(&[b"nu", b"ll{\"Comm", b"and\":\"\\u00e", b"9\\\"\"", b"}"]).unwrap(),
        [Request::default(), command("é\"")]
    );
    assert_eq!(decode_all(&[br#"{"Command":null}"#]).unwrap(), [Request::default()]);
    let all = &decode_all(&[br#"{"suggest":"v","plumbpipe":"p"}"#]).unwrap()[0];
    assert_eq!((all.suggest.as_str(), all.plumb_pipe.as_str()), ("v", "p"));
    assert_eq!(decode_all(&[encode_request(all).as_bytes()]).unwrap(), std::slice::from_ref(all));
}

#[test]
fn malformed_streams_end() {
    for text in [
        "[",
        "5",
        "\"x\"",
        "true",
        "nul!",
        "{x",
        "{\"a\" 1",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"Command\":5}",
        "{\"a\":\"\n",
        "{\"a\":\"\\x",
        "{\"a\":[1}",
        "{\"a\":tru}",
        "{\"a\":1 2",
        "{\"Command\":[]}",
        "{\"a\":01}",
        "}",
    ] {
        assert!(decode_all(&[text.as_bytes()]).is_err(), "{text}");
    }
    assert!(decode_all(&[b"{\"Command\":\"\xff\"}"]).is_err());
    let deep = format!("{{\"a\":{}", "[".repeat(MAX_DEPTH));
    assert_eq!(decode_all(&[deep.as_bytes()]), Err(DecodeError::TooDeep));
    let mut decoder = RequestDecoder::new();
    decoder.feed(b"[");
    assert!(decoder.next_request().is_err());
    decoder.feed(b"{\"Command\":\"version\"}");
    assert!(decoder.next_request().is_err(), "an ended stream stays ended");
}

#[test]
fn large_requests_are_taken_in_small_pieces_up_to_the_limit() {
    let frame = br#"{"Command":""}"#.len();
    let fits = format!("{{\"Command\":\"{}\"}}", "x".repeat(MAX_REQUEST - frame));
    let pieces: Vec<&[u8]> = fits.as_bytes().chunks(100).collect();
    assert_eq!(decode_all(&pieces).unwrap().len(), 1);
    let over = fits.replace("xx\"", "xxx\"");
    assert_eq!(decode_all(&[over.as_bytes()]), Err(DecodeError::TooLarge));
    let many = encode_request(&Request { command: "version".into(), ..Request::default() }).repeat(20_000);
    assert_eq!(decode_all(&[many.as_bytes()]).unwrap().len(), 20_000);
}

#[test]
fn suggest_is_left_out_when_empty() {
    let response = Response { suggest: Some(Vec::new()), ..Response::default() };
    assert_eq!(encode_response(&response), "{\"Resp\":null,\"Rendered\":\"\",\"More\":false,\"Status\":false}\n");
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode_all(&[&bytes]);
    }

    #[test]
    fn near_json_decodes_as_serde_reads_it(text in "[{}\\[\\]:,\"a1 .\\\\utrefalsn-]{0,16}") {
        // serde reads four bytes after `\\u` before it refuses one of them; the scanner refuses the first wrong one.
        prop_assume!(!text.contains("\\u"));
        let text = format!("{{\"k\":{text}}}");
        let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Request>();
        let mut good = Vec::new();
        let (mut end, mut error) = (0, None);
        while let Some(value) = values.next() {
            match value {
                Ok(request) => good.push(request),
                Err(e) => error = Some(e),
            }
            if error.is_none() {
                end = values.byte_offset();
            }
        }
        match (decode_all(&[text.as_bytes()]), error) {
            // Without an error, or when only bytes are missing; the scanner may also still wait for the end of a value
            // whose numbers serde refuses earlier.
            (Ok(requests), _) => prop_assert_eq!(requests, good),
            // What begins as neither an object nor null is refused before it is complete.
            (Err(_), _) if !text[end..].trim_start().starts_with(['{', 'n']) => {}
            (Err(_), error) => prop_assert!(error.is_some_and(|e| !e.is_eof()), "{} was refused", text),
        }
    }

    #[test]
    fn requests_come_back_however_they_are_cut(commands in proptest::collection::vec("(?s).{1,12}", 1..5), cut in 1usize..9) {
        let requests: Vec<Request> =
            commands.into_iter().map(|command| Request { command, ..Request::default() }).collect();
        let bytes: String = requests.iter().map(encode_request).collect();
        let pieces: Vec<&[u8]> = bytes.as_bytes().chunks(cut).collect();
        prop_assert_eq!(decode_all(&pieces).unwrap(), requests);
    }
}

#[test]
fn the_recorded_messages_of_pipes_come_back_byte_for_byte() {
    let rows = RECORDED.iter().flat_map(|r| r.lines()).map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    let mut count = 0;
    for row in rows.filter(|row| row["n"] == 0) {
        for line in row["responses"].as_array().unwrap() {
            let line = line.as_str().unwrap();
            let mut decoder = MessageDecoder::default();
            decoder.feed(line.as_bytes());
            let message = decoder.next_message().unwrap().unwrap();
            assert!(message.ends_with('\n'));
            assert_eq!(encode_message(&message), line);
            count += 1;
        }
    }
    assert_eq!(count, 3);
}

#[test]
fn messages_are_strings_and_nothing_else() {
    let mut decoder = MessageDecoder::default();
    decoder.feed(br#""a" "b\n""#);
    assert_eq!(decoder.next_message(), Ok(Some("a".into())));
    decoder.feed(b"\"c");
    assert_eq!(decoder.next_message(), Ok(Some("b\n".into())));
    assert_eq!(decoder.next_message(), Ok(None));
    for wrong in ["{}", "null", "1", "\"\\x\"", "\"\\ud800\""] {
        let mut decoder = MessageDecoder::default();
        decoder.feed(wrong.as_bytes());
        assert!(decoder.next_message().is_err(), "{wrong}");
    }
}
