// SPDX-License-Identifier: Apache-2.0
//! `novastor object list`: pages are written as they come, and none is kept.

use std::io::{BufWriter, Write};

use bytes::BytesMut;
use driver_api::{Error, ErrorKind, Result};
use hyper::{Method, Response, body::Incoming};
use tokio::sync::mpsc::Sender;

use super::{
    names::Query,
    show::{line, prefix_line, title},
    wire::{Ask, LONGEST_ANSWER, Wire, decoded, next_piece},
};
use crate::{
    api::objects::{
        listing::PAGES,
        types::{ObjectPage, ObjectView},
    },
    cli::{
        Output, Session,
        args::objects::List,
        client::{Client, whole},
    },
};

/// What is written at a time.
const BUFFER: usize = 256 << 10;

/// A listing, of which the host sends one page after the other.
struct Pages {
    client: Client,
    path: String,
    query: List,
}

impl Pages {
    fn path(&self, page: Option<&str>, left: Option<u64>) -> String {
        let List { prefix, delimiter, after, versions, .. } = &self.query;
        let mut query = Query::new(self.path.clone())
            .maybe("prefix", prefix.as_deref())
            .maybe("delimiter", delimiter.as_deref());
        query = match page {
            Some(page) => query.and("page", page),
            None => query.maybe("after", after.as_deref()),
        };
        if *versions {
            query = query.and("versions", "true");
        }
        if let Some(left) = left {
            query = query.and("limit", &left.to_string());
        }
        query.text()
    }

    /// Sends every page to `sender` until there are no more, or enough. Where the answer breaks off the rest is asked for
    /// anew: that tells why, if it cannot be had.
    async fn each(self, sender: Sender<ObjectPage>) -> Result<()> {
        let mut wire = Wire::new(&self.client);
        let (mut next, mut left) = (None::<String>, self.query.limit);
        while left != Some(0) {
            let asked = next.clone();
            let path = self.path(asked.as_deref(), left);
            let ask = Ask::new(Method::GET, path).with(hyper::header::ACCEPT, PAGES);
            let mut answer = Answer::new(wire.send(&ask, whole(Vec::new())).await?);
            loop {
                let mut page = match answer.page().await {
                    Ok(Some(page)) => page,
                    Ok(None) | Err(Ended::BrokenOff(_)) if next != asked => break,
                    Ok(None) => {
                        let why = "the host's answer ended before the listing did";
                        return Err(Error::new(ErrorKind::INTERNAL, why));
                    }
                    Err(Ended::BrokenOff(error) | Ended::Nonsense(error)) => return Err(error),
                };
                next = page.next.take();
                if let Some(left) = &mut left {
                    *left = left.saturating_sub((page.objects.len() + page.prefixes.len()) as u64);
                }
                // Whoever writes says why it takes no more.
                if sender.send(page).await.is_err() || next.is_none() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The host's answer of many pages, one in each line.
struct Answer {
    body: Incoming,
    /// What came of lines that were not told, the first of which begins here.
    came: BytesMut,
    /// Bytes of it that have no end of a line.
    searched: usize,
}

/// Why an answer was not read to its end.
enum Ended {
    /// It was not whole.
    BrokenOff(Error),
    /// What came is of no use.
    Nonsense(Error),
}

impl Answer {
    fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), came: BytesMut::new(), searched: 0 }
    }

    /// The next page; none: the answer is at its end.
    async fn page(&mut self) -> std::result::Result<Option<ObjectPage>, Ended> {
        loop {
            let new = &self.came[self.searched..];
            if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                let line = self.came.split_to(self.searched + end + 1);
                self.searched = 0;
                return decoded(&line).map(Some).map_err(Ended::Nonsense);
            }
            self.searched = self.came.len();
            if self.searched > LONGEST_ANSWER {
                let why = "a page of the listing is longer than any can be";
                return Err(Ended::Nonsense(Error::new(ErrorKind::INTERNAL, why)));
            }
            match next_piece(&mut self.body).await {
                None => return Ok(None),
                Some(Ok(data)) => self.came.extend_from_slice(&data),
                Some(Err(error)) => return Err(Ended::BrokenOff(error)),
            }
        }
    }
}

impl Session {
    pub(super) async fn list_objects(&self, list: List) -> Result<()> {
        let store = self.store(list.store.clone()).await?;
        let versions = list.versions;
        let pages = Pages {
            client: self.client.clone(),
            path: store.paths.objects(&list.bucket),
            query: list,
        };
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let asking = tokio::spawn(pages.each(sender));
        let output = self.output;
        let writing = tokio::task::spawn_blocking(move || {
            let mut written = Lines::new(output, versions);
            while let Some(page) = receiver.blocking_recv() {
                written.page(page)?;
            }
            Ok(written)
        });
        let lost =
            |panic: tokio::task::JoinError| Error::new(ErrorKind::INTERNAL, panic.to_string());
        let asked = asking.await.map_err(lost)?;
        let written: std::io::Result<Lines> = writing.await.map_err(lost)?;
        // What is not whole must not look as if it was.
        let ended = match asked {
            Ok(()) => written.and_then(Lines::end),
            Err(error) => {
                written.and_then(Lines::break_off).map_err(|_| error.clone()).ok();
                return Err(error);
            }
        };
        match ended {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            ended => ended.map_err(|error| Error::from_io("the answer cannot be written", &error)),
        }
    }
}

/// Lines of a listing on their way to standard output.
struct Lines {
    out: BufWriter<std::io::Stdout>,
    output: Output,
    versions: bool,
    any: bool,
}

#[derive(serde::Serialize)]
struct Prefix<'a> {
    prefix: &'a str,
}

impl Lines {
    fn new(output: Output, versions: bool) -> Self {
        let out = BufWriter::with_capacity(BUFFER, std::io::stdout());
        Self { out, output, versions, any: false }
    }

    fn page(&mut self, page: ObjectPage) -> std::io::Result<()> {
        if self.output == Output::Json {
            for object in &page.objects {
                self.element(object)?;
            }
            for prefix in &page.prefixes {
                self.element(&Prefix { prefix })?;
            }
        } else {
            if !self.any {
                self.any = true;
                writeln!(self.out, "{}", title(self.versions))?;
            }
            for entry in merged(&page) {
                match entry {
                    Entry::Object(object) => line(&mut self.out, object, self.versions)?,
                    Entry::Prefix(prefix) => prefix_line(&mut self.out, prefix, self.versions)?,
                }
            }
        }
        self.out.flush()
    }

    fn element(&mut self, value: &impl serde::Serialize) -> std::io::Result<()> {
        self.out.write_all(if self.any { b",\n" } else { b"[\n" })?;
        self.any = true;
        serde_json::to_writer(&mut self.out, value).map_err(std::io::Error::from)
    }

    fn end(mut self) -> std::io::Result<()> {
        if self.output == Output::Json {
            self.out.write_all(if self.any { b"\n]\n" } else { b"[]\n" })?;
        }
        self.out.flush()
    }

    /// Leaves the array open: no program takes it for the whole.
    fn break_off(mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

enum Entry<'a> {
    Object(&'a ObjectView),
    Prefix(&'a str),
}

/// Objects and common prefixes of a page, by name.
fn merged(page: &ObjectPage) -> Vec<Entry<'_>> {
    if page.prefixes.is_empty() {
        return page.objects.iter().map(Entry::Object).collect();
    }
    let mut entries: Vec<(&str, Entry<'_>)> =
        page.objects.iter().map(|object| (object.key.as_str(), Entry::Object(object))).collect();
    entries.extend(page.prefixes.iter().map(|prefix| (prefix.as_str(), Entry::Prefix(prefix))));
    entries.sort_by(|one, other| one.0.cmp(other.0));
    entries.into_iter().map(|(_, entry)| entry).collect()
}
