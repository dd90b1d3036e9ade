// SPDX-License-Identifier: Apache-2.0
use driver_api::ErrorKind;

use super::*;

#[test]
fn a_document_becomes_a_tree_that_borrows() {
    let text = r#"<?xml version="1.0"?><!-- x --><A xmlns="u" Name="a&amp;b">
        <b>1 &lt; 2 &#x41;&#66;</b><n:c/><d><![CDATA[<raw>]]></d><b>second</b><t>true</t><n>12</n></A>"#;
    let root = Element::parse_root(text, "A").expect("a document");
    assert_eq!(root.text("b"), "1 < 2 AB");
    assert_eq!(root.all("b").map(|b| b.text.as_ref()).collect::<Vec<_>>(), ["1 < 2 AB", "second"]);
    assert!(root.child("c").is_some_and(|c| c.text.is_empty()));
    assert_eq!(
        (root.text("d"), root.text.as_ref(), root.attribute("Name").as_ref()),
        ("<raw>", "", "a&b")
    );
    assert_eq!(
        (root.says("t"), root.says("b"), root.number::<u32>("n").expect("12")),
        (true, false, 12)
    );
    assert!(matches!(root.child("d").expect("d").text, Cow::Borrowed(_)));
    assert!(root.need("none").is_err() && root.number::<u32>("b").is_err());
}

#[test]
fn what_is_no_document_is_refused() {
    let deep = "<a>".repeat(MAX_DEPTH + 1);
    for bad in ["", "text", "<a>", "<a></b>", "<a/><b/>", "<a>&unknown;</a>", "<a>&#0;</a>", &deep]
    {
        let error = Element::parse(bad).expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::CORRUPTED, "{bad}");
    }
    let many = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS));
    assert_eq!(Element::parse(&many).expect_err("an attack").kind(), ErrorKind::CORRUPTED);
    assert!(Element::parse_root("<Other/>", "A").is_err());
    assert!(Element::parse_root("<B/>", "A|B").is_ok());
}

#[test]
fn what_is_written_is_read_again() {
    let mut writer = Writer::new();
    writer.element_with("r", "x=\"1\"", |r| r.element("i", |i| i.text("t", "a<&>\"'ü ")));
    let text = writer.finish();
    let root = Element::parse_root(&text, "r").expect("a document");
    assert_eq!(root.child("i").expect("i").text("t"), "a<&>\"'ü ");
    assert!(check_text("key", "tab\tand ü").is_ok());
    assert!(check_text("key", "\u{1}").is_err() && check_text("key", "\u{fffe}").is_err());
}
