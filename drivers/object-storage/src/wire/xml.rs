// SPDX-License-Identifier: Apache-2.0
//! The little XML that stores speak: an answer becomes a tree which borrows from it, and its root is checked.

use std::borrow::Cow;

use driver_api::Result;
use quick_xml::{
    Reader,
    escape::{escape, resolve_xml_entity, unescape},
    events::{BytesRef, Event, attributes::Attributes},
};

/// Answers of stores are flat: what is deeper is no answer but an attack.
const MAX_DEPTH: usize = 32;
/// More than the longest page of any store has: 5000 blobs with all that is said of them.
const MAX_ELEMENTS: usize = 1 << 20;

/// An element. Namespaces are left out: no store needs them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// Its name without a namespace's prefix.
    pub name: &'a str,
    /// Its attributes, as they stand.
    attributes: &'a str,
    /// The text directly in it.
    pub text: Cow<'a, str>,
    /// The elements in it, in their order.
    pub children: Vec<Element<'a>>,
}

impl<'a> Element<'a> {
    /// The document's root. `Corrupted`: it is not XML, or has more than one root.
    pub(crate) fn parse(document: &'a str) -> Result<Self> {
        let mut reader = Reader::from_str(document);
        let mut open: Vec<Element<'a>> = Vec::new();
        let mut root = None;
        let mut elements = 0;
        loop {
            let done = match reader.read_event().map_err(|e| broken(&e.to_string()))? {
                Event::Start(start) => {
                    if open.len() == MAX_DEPTH {
                        return Err(broken("its elements are too deep in each other"));
                    }
                    let name = local_name(document, start.name().into_inner())?;
                    let attributes = borrowed(document, start.attributes_raw()).unwrap_or("");
                    open.push(Element { name, attributes, ..Element::default() });
                    None
                }
                Event::Empty(start) => {
                    let name = local_name(document, start.name().into_inner())?;
                    Some(Element { name, ..Element::default() })
                }
                // The reader has checked that the names agree.
                Event::End(_) => open.pop(),
                Event::Text(text) => {
                    if let Some(element) = open.last_mut() {
                        add(&mut element.text, text.into_inner(), document)?;
                    }
                    None
                }
                Event::CData(text) => {
                    if let Some(element) = open.last_mut() {
                        add(&mut element.text, text.into_inner(), document)?;
                    }
                    None
                }
                Event::GeneralRef(name) => {
                    if let Some(element) = open.last_mut() {
                        add_reference(element.text.to_mut(), &name)?;
                    }
                    None
                }
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => None,
            };
            let Some(mut element) = done else { continue };
            elements += 1;
            if elements > MAX_ELEMENTS {
                return Err(broken("it has more elements than any answer"));
            }
            if !element.children.is_empty() {
                // Only blanks between elements; they are of no use to anybody.
                element.text = Cow::Borrowed("");
            }
            match open.last_mut() {
                Some(parent) => parent.children.push(element),
                None if root.is_none() => root = Some(element),
                None => return Err(broken("it has two roots")),
            }
        }
        match root {
            Some(root) if open.is_empty() => Ok(root),
            _ => Err(broken("it ends too early")),
        }
    }

    /// Parses a document whose root must have this name, or one of these between bars.
    pub(crate) fn parse_root(document: &'a str, name: &str) -> Result<Self> {
        let root = Self::parse(document)?;
        if !name.split('|').any(|name| root.name == name) {
            return Err(broken(&format!("its root is `{}` instead of `{name}`", root.name)));
        }
        Ok(root)
    }

    /// The first element of this name in it.
    pub(crate) fn child(&self, name: &str) -> Option<&Element<'a>> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The elements of this name in it.
    pub(crate) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Element<'a>> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// An attribute; empty: it has none of that name.
    pub(crate) fn attribute(&self, name: &str) -> Cow<'a, str> {
        let found = Attributes::new(self.attributes, 0)
            .flatten()
            .find(|found| found.key.local_name().as_ref() == name.as_bytes());
        let value = found.and_then(|found| match found.value {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok(),
            Cow::Owned(_) => None,
        });
        value.and_then(|value| unescape(value).ok()).unwrap_or_default()
    }

    /// The text of the first element of this name; empty: there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.child(name).map_or("", |child| &child.text)
    }

    /// The same, which must be there and not empty.
    pub(crate) fn need(&self, name: &str) -> Result<&str> {
        match self.text(name) {
            "" => Err(broken(&format!("`{}` has no `{name}`", self.name))),
            text => Ok(text),
        }
    }

    /// The number in the first element of this name, which must be there.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let text = self.need(name)?.trim();
        text.parse().map_err(|_| broken(&format!("`{name}` is `{text}` and no number")))
    }

    /// Whether the first element of this name says `true`.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.text(name).trim().eq_ignore_ascii_case("true")
    }
}

fn local_name<'a>(document: &'a str, name: &[u8]) -> Result<&'a str> {
    let name = borrowed(document, name).ok_or_else(|| broken("a name is not UTF-8"))?;
    Ok(name.rsplit(':').next().unwrap_or(name))
}

/// The part of the document that these bytes are: the reader's own lifetimes are shorter than the document's.
fn borrowed<'a>(document: &'a str, bytes: &[u8]) -> Option<&'a str> {
    let start = (bytes.as_ptr() as usize).checked_sub(document.as_ptr() as usize)?;
    document.get(start..start.checked_add(bytes.len())?)
}

fn add<'a>(text: &mut Cow<'a, str>, bytes: Cow<'_, [u8]>, document: &'a str) -> Result<()> {
    match borrowed(document, &bytes) {
        Some(part) if text.is_empty() => *text = Cow::Borrowed(part),
        Some(part) => text.to_mut().push_str(part),
        None => {
            let part = std::str::from_utf8(&bytes).map_err(|_| broken("a text is not UTF-8"))?;
            text.to_mut().push_str(part);
        }
    }
    Ok(())
}

fn add_reference(text: &mut String, name: &BytesRef<'_>) -> Result<()> {
    let number = name.resolve_char_ref().map_err(|e| broken(&e.to_string()))?;
    if let Some(character) = number {
        text.push(character);
        return Ok(());
    }
    let name = name.decode().map_err(|e| broken(&e.to_string()))?;
    let known = resolve_xml_entity(&name);
    text.push_str(known.ok_or_else(|| broken(&format!("`&{name};` is unknown")))?);
    Ok(())
}

fn broken(why: &str) -> driver_api::Error {
    super::nonsense(format!("it is not the XML it should be: {why}"))
}

/// A document that is being written.
#[derive(Debug)]
pub(crate) struct Writer {
    text: String,
}

impl Writer {
    /// A document with the usual declaration.
    pub(crate) fn new() -> Self {
        Self { text: String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>") }
    }

    /// An element with others in it.
    pub(crate) fn element(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.element_with(name, "", inside);
    }

    /// The same, with attributes as they are to be written.
    pub(crate) fn element_with(
        &mut self,
        name: &str,
        attributes: &str,
        inside: impl FnOnce(&mut Self),
    ) {
        self.text.push('<');
        self.text.push_str(name);
        if !attributes.is_empty() {
            self.text.push(' ');
            self.text.push_str(attributes);
        }
        self.text.push('>');
        inside(self);
        self.close(name);
    }

    /// An element with text in it.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.text.push('<');
        self.text.push_str(name);
        self.text.push('>');
        self.text.push_str(&escape(text));
        self.close(name);
    }

    fn close(&mut self, name: &str) {
        self.text.push_str("</");
        self.text.push_str(name);
        self.text.push('>');
    }

    /// The document.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// Refuses text that XML 1.0 cannot carry, not even escaped: control characters.
pub(crate) fn check_text(what: &str, text: &str) -> Result<()> {
    let bad = |c: char| {
        (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    if text.contains(bad) {
        return Err(crate::error::invalid(format!(
            "the {what} {text:?} has a control character, which this request to the store cannot carry"
        )));
    }
    Ok(())
}

#[cfg(test)]
#[path = "xml_tests.rs"]
mod tests;
