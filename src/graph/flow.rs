//! What comes before what, as a picture: boxes with lines of text and arrows between them.

use std::fmt::Write as _;

use super::mermaid::label;
use super::render::quoted;

/// Boxes and arrows, in the order in which they are drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow {
    /// The title.
    pub title: String,
    /// The lines of each box.
    pub boxes: Vec<Vec<String>>,
    /// From one box to another, by index; true for one that must have succeeded, false for one that must only have ended.
    pub arrows: Vec<(usize, usize, bool)>,
}

impl Flow {
    /// The text of graphviz.
    pub fn dot(&self) -> String {
        let mut text = String::new();
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            writeln!(text, "{arguments}").expect("a String takes every text");
        };
        line(format_args!("digraph \"{}\" {{", quoted(&self.title)));
        line(format_args!(
            "  graph [label=\"{}\", labelloc=t, fontname=\"Helvetica\", fontsize=18, rankdir=TB, pad=0.3]",
            quoted(&self.title)
        ));
        line(format_args!(
            "  node [shape=box, style=\"filled,rounded\", fillcolor=\"#e4edf9\", fontname=\"Helvetica\"]"
        ));
        for (index, lines) in self.boxes.iter().enumerate() {
            // `\l` ends a line that is set to the left.
            let lines: String = lines.iter().map(|line| format!("{}\\l", quoted(line))).collect();
            line(format_args!("  n{index} [label=\"{lines}\"]"));
        }
        for (from, to, succeeded) in &self.arrows {
            line(format_args!("  n{from} -> n{to}{}", if *succeeded { "" } else { " [style=dashed]" }));
        }
        line(format_args!("}}"));
        text
    }

    /// The text of Mermaid.
    pub fn mermaid(&self) -> String {
        let mut text = format!("---\ntitle: {}\n---\nflowchart TB\n", label(&[&self.title]));
        for (index, lines) in self.boxes.iter().enumerate() {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            writeln!(text, "  n{index}[{}]", label(&lines)).expect("a String takes every text");
        }
        for (from, to, succeeded) in &self.arrows {
            let arrow = if *succeeded { "-->" } else { "-.->" };
            writeln!(text, "  n{from} {arrow} n{to}").expect("a String takes every text");
        }
        text
    }
}
