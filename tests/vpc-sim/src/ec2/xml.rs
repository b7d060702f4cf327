//! A writer for the nested elements of EC2's answers.

use std::fmt::Display;

use quick_xml::Writer;
use quick_xml::escape::partial_escape;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// An answer being written. Writing to memory cannot fail.
pub(super) struct Xml(Writer<Vec<u8>>);

impl Xml {
    /// Starts with the declaration.
    pub(super) fn document() -> Self {
        let mut xml = Self(Writer::new(Vec::new()));
        xml.event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        xml
    }

    /// The finished text.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0.into_inner()
    }

    /// `<name>text</name>`, escaped. EC2 leaves quotes as they are.
    pub(super) fn text(&mut self, name: &str, text: impl Display) {
        let text = text.to_string();
        let escaped = BytesText::from_escaped(partial_escape(&text));
        self.element(name, |xml| xml.event(Event::Text(escaped)));
    }

    /// The same, or nothing: EC2 leaves absent scalars out.
    pub(super) fn maybe(&mut self, name: &str, text: Option<impl Display>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// `<name>…</name>`.
    pub(super) fn element(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.event(Event::Start(BytesStart::new(name)));
        content(self);
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// The root element, which carries the API's namespace.
    pub(super) fn root(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        let start = BytesStart::new(name).with_attributes([("xmlns", "http://ec2.amazonaws.com/doc/2016-11-15/")]);
        self.event(Event::Start(start));
        content(self);
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// `<name><item>…</item>…</name>`; an empty list is an empty element.
    pub(super) fn set<T>(&mut self, name: &str, items: impl IntoIterator<Item = T>, content: impl Fn(&mut Self, T)) {
        self.element(name, |xml| {
            for item in items {
                xml.element("item", |xml| content(xml, item));
            }
        });
    }

    /// A list whose items are scalars.
    pub(super) fn scalars(&mut self, name: &str, items: impl IntoIterator<Item = impl Display>) {
        self.element(name, |xml| {
            for item in items {
                xml.text("item", item);
            }
        });
    }

    fn event(&mut self, event: Event<'_>) {
        self.0.write_event(event).expect("writing to memory cannot fail");
    }
}
