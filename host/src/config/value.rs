// SPDX-License-Identifier: Apache-2.0
//! One value against the type that its key declares; the same for the host's keys and a driver's options.

use std::path::Path;

use ::config::{Value, ValueKind};
use driver_api::{OptionSpec, OptionType};
use serde_json::Value as Json;

use super::{layers::parse_inline, names::nearest, sizes::parse_size};

/// Why a value is refused. It never quotes the value, except for a choice that is no secret.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// What a value is, for messages.
pub(super) fn kind_name(value: &Value) -> &'static str {
    match value.kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "a boolean",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            "an integer"
        }
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

/// The value as JSON, as it is.
pub(super) fn json(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(value) => Json::from(*value),
        ValueKind::I64(value) => Json::from(*value),
        ValueKind::U64(value) => Json::from(*value),
        // The layers make no wider integers than 64 bits.
        ValueKind::I128(value) => Json::from(*value as i64),
        ValueKind::U128(value) => Json::from(*value as u64),
        ValueKind::Float(value) => Json::from(*value),
        ValueKind::String(value) => Json::from(value.as_str()),
        ValueKind::Table(table) => {
            table.iter().map(|(key, value)| (key.clone(), json(value))).collect()
        }
        ValueKind::Array(items) => items.iter().map(json).collect(),
    }
}

/// The value as JSON of the type that `spec` declares. `from_text`: it comes from where everything is text.
pub(super) fn check(spec: &OptionSpec, value: &Value, from_text: bool) -> Result<Json, Wrong> {
    let text = match &value.kind {
        ValueKind::String(text) => Some(text.as_str()),
        _ => None,
    };
    let typed = text.filter(|_| from_text);
    let found = match (spec.kind, &value.kind) {
        (OptionType::TEXT, _) => text.map(Json::from),
        (OptionType::INTEGER, ValueKind::I64(number)) => Some(Json::from(*number)),
        (OptionType::INTEGER, _) => typed.and_then(|text| text.parse::<i64>().ok()).map(Json::from),
        (OptionType::BOOLEAN, ValueKind::Boolean(value)) => Some(Json::from(*value)),
        (OptionType::BOOLEAN, _) => {
            typed.and_then(|text| text.parse::<bool>().ok()).map(Json::from)
        }
        (OptionType::SIZE, ValueKind::I64(number)) => u64::try_from(*number).ok().map(Json::from),
        (OptionType::SIZE, _) => text.and_then(|text| parse_size(text).ok()).map(Json::from),
        (OptionType::NUMBER, ValueKind::I64(number)) => Some(Json::from(*number)),
        (OptionType::NUMBER, ValueKind::Float(number)) => Some(Json::from(*number)),
        (OptionType::NUMBER, _) => typed
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|number| number.is_finite())
            .map(Json::from),
        (OptionType::PATH, _) => return path(spec, value, text),
        (OptionType::CHOICE, _) => return choice(spec, value, text),
        (OptionType::TEXTS, _) => texts(value, typed),
        (OptionType::TABLE, ValueKind::Table(_) | ValueKind::Array(_)) => Some(json(value)),
        (OptionType::TABLE, _) => typed.and_then(parse_inline).map(|value| json(&value)),
        // A newer driver's type: the driver checks it.
        _ => Some(json(value)),
    };
    found.ok_or_else(|| mismatch(spec, value))
}

fn mismatch(spec: &OptionSpec, value: &Value) -> Wrong {
    let example = match spec.kind {
        OptionType::TEXT => "a text in quotes",
        OptionType::INTEGER => "a whole number without quotes, such as 16",
        OptionType::BOOLEAN => "true or false, without quotes",
        OptionType::SIZE => "bytes, such as 4096 or \"64MiB\"",
        OptionType::NUMBER => "a number without quotes, such as 0.5",
        OptionType::PATH => "a path in quotes that begins with /",
        OptionType::CHOICE => "one of the choices in quotes",
        OptionType::TEXTS => "a list of texts, such as [\"a\", \"b\"]",
        _ => "a table, such as { a = 1 }",
    };
    Wrong::new(
        format!("the value is not of type {}: it is {}", spec.kind.name(), describe(spec, value)),
        format!("write {example} ({})", spec.help),
    )
}

fn describe(spec: &OptionSpec, value: &Value) -> &'static str {
    match (spec.kind, &value.kind) {
        (OptionType::SIZE, ValueKind::I64(_)) => "negative",
        (OptionType::TEXTS, ValueKind::Array(_)) => "a list of other things",
        _ => kind_name(value),
    }
}

fn path(spec: &OptionSpec, value: &Value, text: Option<&str>) -> Result<Json, Wrong> {
    let text = text.ok_or_else(|| mismatch(spec, value))?;
    if !Path::new(text).is_absolute() || text.contains('\0') {
        return Err(Wrong::new(
            "the path is not absolute",
            "write it from the root, such as \"/srv/novastor\"; `~` and variables are not expanded",
        ));
    }
    Ok(Json::from(text))
}

fn choice(spec: &OptionSpec, value: &Value, text: Option<&str>) -> Result<Json, Wrong> {
    let text = text.ok_or_else(|| mismatch(spec, value))?;
    if spec.choices.iter().any(|choice| choice == text) {
        return Ok(Json::from(text));
    }
    let all: Vec<String> = spec.choices.iter().map(|choice| format!("\"{choice}\"")).collect();
    let message = if spec.secret {
        "the value is none of the choices".to_owned()
    } else {
        format!("{text:?} is none of the choices")
    };
    let choices = spec.choices.iter().map(|choice| choice.as_str());
    let remedy = match nearest(text, choices).filter(|_| !spec.secret) {
        Some(near) => format!("write \"{near}\"; the choices are {}", all.join(", ")),
        None => format!("write one of {}", all.join(", ")),
    };
    Err(Wrong::new(message, remedy))
}

/// A list; as text either a TOML list or words between commas.
fn texts(value: &Value, typed: Option<&str>) -> Option<Json> {
    match (&value.kind, typed) {
        (ValueKind::Array(items), _) => {
            let all = items.iter().all(|item| matches!(item.kind, ValueKind::String(_)));
            all.then(|| json(value))
        }
        (_, Some(text)) if text.trim_start().starts_with('[') => texts(&parse_inline(text)?, None),
        (_, Some(text)) => {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            Some(words.collect())
        }
        _ => None,
    }
}
