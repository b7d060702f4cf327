//! Reading JSON objects field by field, so that an error can name the field it is about.
//!
//! A derived deserialiser reports a line and a column of a text that the reader never sees; operators know fields.

use serde_json::{Map, Value};

/// A field that does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {path:?}: expected {expected}, found {found}")]
pub struct FieldError {
    /// Dotted path from the top, such as `prevResult.ips[0].address`.
    pub path: String,
    /// What belongs there.
    pub expected: &'static str,
    /// What is there: a short description, never a long value.
    pub found: String,
}

/// An object and where it sits.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The object at `path` (empty for the top).
    pub(crate) fn new(value: &'a Value, path: &str) -> Result<Self, FieldError> {
        match value.as_object() {
            Some(map) => Ok(Self {
                map,
                path: path.to_owned(),
            }),
            None => Err(mismatch(path.to_owned(), "an object", value)),
        }
    }

    /// A string. Missing and null are the same, as in Go.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, FieldError> {
        self.get(key)
            .map(|v| v.as_str().ok_or_else(|| self.wrong(key, "a string", v)))
            .transpose()
    }

    /// A string that parses.
    pub(crate) fn parsed<T: std::str::FromStr>(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Option<T>, FieldError> {
        let parse = |text: &str| {
            text.parse().map_err(|_| FieldError {
                path: self.path_of(key),
                expected,
                found: quote(text),
            })
        };
        self.text(key)?.filter(|text| !text.is_empty()).map(parse).transpose()
    }

    /// An integer.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, FieldError> {
        self.get(key)
            .map(|v| v.as_i64().ok_or_else(|| self.wrong(key, "an integer", v)))
            .transpose()
    }

    /// An object.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>, FieldError> {
        self.get(key).map(|v| Self::new(v, &self.path_of(key))).transpose()
    }

    /// The objects of a list; empty when there is none.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Self>, FieldError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let list = value.as_array().ok_or_else(|| self.wrong(key, "a list", value))?;
        list.iter()
            .enumerate()
            .map(|(i, v)| Self::new(v, &format!("{}[{i}]", self.path_of(key))))
            .collect()
    }

    /// Whether the key is there and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// An error about a field of this object.
    pub(crate) fn missing(&self, key: &str, expected: &'static str) -> FieldError {
        FieldError {
            path: self.path_of(key),
            expected,
            found: "nothing".to_owned(),
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn wrong(&self, key: &str, expected: &'static str, found: &Value) -> FieldError {
        mismatch(self.path_of(key), expected, found)
    }
}

fn mismatch(path: String, expected: &'static str, found: &Value) -> FieldError {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => quote(s),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    FieldError { path, expected, found }
}

/// The text in quotes, cut to a length that fits into a message.
fn quote(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}
