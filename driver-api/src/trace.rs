// SPDX-License-Identifier: Apache-2.0
//! Sends this library's tracing events, with the spans around them, and its panics to the host's log.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt::{Debug, Write},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use abi_stable::std_types::{RString, Tuple2};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::host::{LogRecord, library_host};

pub(crate) fn install() {
    // The author may have set a subscriber of their own; then the host sees nothing of it.
    if tracing::subscriber::set_global_default(Forward::default()).is_err() {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let text = info.payload_as_str().unwrap_or("a value that is not text");
        send(&Level::ERROR, "panic", text, &[Tuple2("at".into(), place.into())]);
    }));
}

#[derive(Default)]
struct Forward {
    next: AtomicU64,
    spans: Mutex<HashMap<u64, Span>>,
}

struct Span {
    text: String,
    handles: usize,
}

thread_local! {
    static ENTERED: RefCell<Vec<(u64, RString)>> = const { RefCell::new(Vec::new()) };
}

fn number(level: &Level) -> u32 {
    match *level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

fn send(level: &Level, target: &str, message: &str, fields: &[Tuple2<RString, RString>]) {
    let Some(host) = library_host() else { return };
    let spans: Vec<RString> = ENTERED
        .try_with(|entered| entered.borrow().iter().map(|(_, text)| text.clone()).collect())
        .unwrap_or_default();
    host.raw.log(&LogRecord {
        level: number(level),
        target: target.into(),
        message: message.into(),
        fields: fields.into(),
        spans: spans.as_slice().into(),
        reserved: [0; 2],
    });
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<Tuple2<RString, RString>>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.push(Tuple2(field.name().into(), format!("{value:?}").into()));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

fn write_fields(text: &mut String, fields: &Fields) {
    for Tuple2(key, value) in &fields.others {
        let separator = if text.ends_with('}') {
            text.pop();
            " "
        } else {
            "{"
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{key}={value}}}");
    }
}

impl Forward {
    fn spans(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Span>> {
        self.spans.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        library_host().is_some_and(|host| {
            host.raw.enabled(number(metadata.level()), metadata.target().into())
        })
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut text = attributes.metadata().name().to_owned();
        write_fields(&mut text, &fields);
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.spans().insert(id, Span { text, handles: 1 });
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(span) = self.spans().get_mut(&id.into_u64()) {
            write_fields(&mut span.text, &fields);
        }
    }

    fn record_follows_from(&self, _id: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        send(metadata.level(), metadata.target(), &fields.message, &fields.others);
    }

    fn enter(&self, id: &Id) {
        let text = self.spans().get(&id.into_u64()).map(|span| RString::from(span.text.as_str()));
        ENTERED.with_borrow_mut(|entered| entered.push((id.into_u64(), text.unwrap_or_default())));
    }

    fn exit(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| {
            if let Some(at) = entered.iter().rposition(|(open, _)| *open == id.into_u64()) {
                entered.remove(at);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().get_mut(&id.into_u64()) {
            span.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut spans = self.spans();
        let Some(span) = spans.get_mut(&id.into_u64()) else { return false };
        span.handles -= 1;
        let closed = span.handles == 0;
        if closed {
            spans.remove(&id.into_u64());
        }
        closed
    }
}
