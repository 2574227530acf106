//! What is refused, and how things are written. Pipelines that run are in `tests/plumb.rs`.

use super::*;

fn names(names: &[&str]) -> Vec<Element> {
    names.iter().map(|name| Element::Pipe(PipeName::within(&Namespace::default_namespace(), name).unwrap())).collect()
}

fn with(pipelines: &[&[&str]]) -> Plumbed {
    let mut plumbed = Plumbed::default();
    for elements in pipelines {
        let elements = names(elements);
        let text = pipeline::text(&elements);
        plumbed.pipelines.push(Pipeline::new(Namespace::default_namespace(), elements, text).0);
    }
    plumbed
}

#[test]
fn pipes_cannot_feed_themselves() {
    let plumbed = with(&[&["a", "b"], &["b", "c", "d"], &["x", "a"]]);
    for wrong in [&["d", "a"][..], &["q", "q"], &["c", "x"], &["z", "d", "b"]] {
        assert!(matches!(plumbed.looped(&names(wrong)), Err(PlumbError::Loop { .. })), "{wrong:?}");
    }
    for fine in [&["a", "d"][..], &["x", "c"], &["d", "e", "f"]] {
        plumbed.looped(&names(fine)).unwrap();
    }
    let mut through = names(&["d", "a"]);
    let program = Invocation { text: "cat".into(), path: "/bin/cat".into(), words: vec!["cat".into()] };
    through.insert(1, Element::Program(program));
    plumbed.looped(&through).unwrap();
    let error = plumbed.looped(&names(&["d", "a"])).unwrap_err().to_string();
    assert!(error.ends_with("minimega//d minimega//a minimega//b minimega//c minimega//d"), "{error}");
}

#[test]
fn a_pipeline_is_found_by_its_elements_and_by_its_line() {
    let plumbed = with(&[&["a", "odd \"one\""]]);
    let pipeline = &plumbed.pipelines[0];
    let is = |words: &[&str]| pipeline.is(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    assert_eq!(pipeline.text, r#"minimega//a "minimega//odd \"one\"""#);
    assert!(is(&["a", "odd \"one\""]) && is(&["minimega//a", "odd \"one\""]) && is(&[&pipeline.text]));
    let mut elements = names(&["a", "b"]);
    let words = ["sed", "s/x y/z/"].map(str::to_owned).to_vec();
    elements.insert(1, Element::Program(Invocation { text: "sed 's/x y/z/'".into(), path: "/bin/sed".into(), words }));
    let text = pipeline::text(&elements);
    assert_eq!(text, "minimega//a sed 's/x y/z/' minimega//b");
    let filtered = Pipeline::new(Namespace::default_namespace(), elements, text).0;
    for line in ["a \"sed 's/x y/z/'\" b", "\"minimega//a sed 's/x y/z/' minimega//b\"", &filtered.text] {
        let words = crate::language::token::tokenize(line).unwrap().into_iter().map(|word| word.text);
        assert!(filtered.is(&words.collect::<Vec<_>>()), "{line}");
    }
    assert!(!is(&["a"]) && !is(&["a", "b"]) && !is(&["odd \"one\"", "a"]));
}

#[test]
fn quoted_words_come_back_from_the_command_language() {
    for text in ["plain", "", "two words", r#"a "b" 'c' \d #e"#, "s/a/b/"] {
        let words = crate::language::token::tokenize(&Quoted(text).to_string()).unwrap();
        assert_eq!(words.len(), 1);
        assert_eq!(words[0].text, text);
    }
}
