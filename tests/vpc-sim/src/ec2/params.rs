//! The parameters of a Query request: a flat list of names and values, where lists and structures are spelled out in
//! the names (`Filter.1.Value.2`).
//!
//! Decoders *take* parameters; what is left over in the end is a parameter this EC2 does not know, and is refused by
//! name. So a client that misspells something is told, instead of being half obeyed.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use crate::model::{Ec2Error, ErrorCode};

/// Name and value of every parameter. A repeated name keeps its last value.
#[derive(Debug, Clone)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// Decodes a form body or a query string, which share one encoding.
    pub(crate) fn decode(form: &[u8]) -> Self {
        Self(form_urlencoded::parse(form).into_owned().collect())
    }

    /// A parameter, if it was sent.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// A parameter that must be there.
    pub(crate) fn require(&mut self, name: &str) -> Result<String, Ec2Error> {
        self.take(name).ok_or_else(|| Ec2Error::missing(name))
    }

    /// A parameter of a type with a text form: numbers and addresses.
    pub(crate) fn take_parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Ec2Error> {
        self.take(name).map(|text| parse(name, &text)).transpose()
    }

    /// A boolean; EC2 takes exactly `true` and `false`.
    pub(crate) fn take_flag(&mut self, name: &str) -> Result<Option<bool>, Ec2Error> {
        self.take_parsed(name)
    }

    /// A list of scalars, `Name.1`, `Name.2` …, by number.
    pub(crate) fn take_list(&mut self, name: &str) -> Vec<String> {
        let numbers = self.numbers(name);
        numbers
            .into_iter()
            .filter_map(|number| self.take(&format!("{name}.{number}")))
            .collect()
    }

    /// A list of scalars with a text form.
    pub(crate) fn take_parsed_list<T: FromStr>(&mut self, name: &str) -> Result<Vec<T>, Ec2Error> {
        self.take_list(name).iter().map(|text| parse(name, text)).collect()
    }

    /// The numbers under a list's name, ascending.
    pub(crate) fn numbers(&self, name: &str) -> BTreeSet<u32> {
        let number = |key: &String| {
            key.strip_prefix(name)?
                .strip_prefix('.')?
                .split('.')
                .next()?
                .parse()
                .ok()
        };
        self.0.keys().filter_map(number).collect()
    }

    /// Drops parameters that are known but change nothing in this EC2.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        self.0.retain(|key, _| {
            !names
                .iter()
                .any(|name| key == name || key.starts_with(&format!("{name}.")))
        });
    }

    /// Every parameter must have been taken.
    pub(crate) fn finish(self) -> Result<(), Ec2Error> {
        self.0.keys().next().map_or(Ok(()), |name| {
            let text = format!("The parameter {name} is not recognized");
            Err(Ec2Error::new(ErrorCode::UnknownParameter, text))
        })
    }
}

fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, Ec2Error> {
    text.parse()
        .map_err(|_| Ec2Error::value(format!("Value ({text}) for parameter {name} is invalid.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plus_and_percent_twenty_are_both_spaces() {
        let mut params = Params::decode(b"Description=a+b%20c&Empty=&Slash=%2F%3A");
        assert_eq!(params.take("Description").as_deref(), Some("a b c"));
        assert_eq!(params.take("Empty").as_deref(), Some(""));
        assert_eq!(params.take("Slash").as_deref(), Some("/:"));
        assert_eq!(params.take("Absent"), None);
    }

    #[test]
    fn lists_follow_their_numbers_not_their_order() {
        let mut params = Params::decode(b"Id.10=c&Id.2=b&Id.1=a&Idle.1=x");
        assert_eq!(params.take_list("Id"), ["a", "b", "c"]);
        assert_eq!(
            params.finish().unwrap_err().message,
            "The parameter Idle.1 is not recognized"
        );
    }

    #[test]
    fn a_bad_number_is_named() {
        let refusal = Params::decode(b"MaxResults=many")
            .take_parsed::<u32>("MaxResults")
            .unwrap_err();
        assert_eq!(refusal.message, "Value (many) for parameter MaxResults is invalid.");
    }
}
