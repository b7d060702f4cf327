//! Rust source without what could deceive a search: comments and the inside of literals become blanks.
//!
//! Invariant: the result has the same lines, and every other character keeps its place on its line.

use std::iter::Peekable;
use std::str::Chars;

/// The source with comments and literals blanked.
pub(super) fn mask(source: &str) -> String {
    let mut masker = Masker {
        rest: source.chars().peekable(),
        out: String::with_capacity(source.len()),
        previous: ' ',
    };
    while masker.step() {}
    masker.out
}

struct Masker<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    previous: char,
}

impl Masker<'_> {
    /// Takes one token; false at the end.
    fn step(&mut self) -> bool {
        let Some(character) = self.rest.next() else {
            return false;
        };
        let in_word = self.previous.is_alphanumeric() || self.previous == '_';
        match (character, self.rest.peek()) {
            ('/', Some('/')) => self.line_comment(),
            ('/', Some('*')) => self.block_comment(),
            ('"', _) => self.string(),
            ('r', Some('"' | '#')) if !in_word || self.previous == 'b' || self.previous == 'c' => self.raw(),
            ('\'', _) => self.quote(),
            _ => self.keep(character),
        }
        true
    }

    fn keep(&mut self, character: char) {
        self.out.push(character);
        self.previous = character;
    }

    fn blank(&mut self, character: char) {
        self.out.push(if character == '\n' { '\n' } else { ' ' });
        self.previous = ' ';
    }

    fn line_comment(&mut self) {
        self.blank('/');
        while let Some(character) = self.rest.next_if(|next| *next != '\n') {
            self.blank(character);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        let mut last = '/';
        self.blank('/');
        while let Some(character) = self.rest.next() {
            self.blank(character);
            let pair = (last, character);
            last = character;
            if pair == ('/', '*') {
                depth += 1;
                last = ' ';
            } else if pair == ('*', '/') {
                depth = depth.saturating_sub(1);
                last = ' ';
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.keep('"');
        while let Some(character) = self.rest.next() {
            match character {
                '"' => return self.keep('"'),
                '\\' => {
                    self.blank('\\');
                    if let Some(escaped) = self.rest.next() {
                        self.blank(escaped);
                    }
                }
                other => self.blank(other),
            }
        }
    }

    /// A raw string, or a raw identifier such as `r#type`.
    fn raw(&mut self) {
        self.keep('r');
        let mut hashes = 0_usize;
        while self.rest.next_if_eq(&'#').is_some() {
            self.keep('#');
            hashes += 1;
        }
        if self.rest.next_if_eq(&'"').is_none() {
            return;
        }
        self.keep('"');
        let mut closing: Option<usize> = None;
        while let Some(character) = self.rest.next() {
            self.blank(character);
            closing = match (character, closing) {
                ('"', _) => Some(0),
                ('#', Some(seen)) => Some(seen + 1),
                _ => None,
            };
            if closing == Some(hashes) {
                return;
            }
        }
    }

    /// A character literal is blanked, a lifetime stays.
    fn quote(&mut self) {
        self.keep('\'');
        let mut ahead = self.rest.clone();
        let literal = match ahead.next() {
            Some('\\') => true,
            Some(_) => ahead.next() == Some('\''),
            None => false,
        };
        if !literal {
            return;
        }
        let mut escaped = false;
        while let Some(character) = self.rest.next() {
            if character == '\'' && !escaped {
                return self.keep('\'');
            }
            escaped = character == '\\' && !escaped;
            self.blank(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        for (source, masked) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"x\\\"y\") g", "f(\"    \") g"),
            ("r#\"a\"b\"# c", "r#\"      c"),
            ("r#type = 1", "r#type = 1"),
            ("'{' '\\'' &'a b", "' ' '  ' &'a b"),
            ("br\"{\" x", "br\"   x"),
            ("for\"\"", "for\"\""),
        ] {
            assert_eq!(mask(source), masked, "{source}");
        }
    }
}
