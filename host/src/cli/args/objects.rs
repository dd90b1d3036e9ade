// SPDX-License-Identifier: Apache-2.0
//! What can be typed of buckets and objects.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use super::{pair, size};
use crate::cli::objects::names::{Place, Span, place, span};

/// The backend whose objects are meant.
#[derive(Args, Clone, Debug, Default)]
pub struct Store {
    /// The backend; the only one with objects if none
    #[arg(long)]
    pub backend: Option<String>,
}

/// `novastor bucket`
#[derive(Subcommand, Debug)]
pub enum BucketCommand {
    /// Create a bucket
    Create {
        /// Its name
        name: String,
        /// Where it is to be; where the backend's configuration says if none
        #[arg(long)]
        region: Option<String>,
        /// Keep the versions of objects that are overwritten and deleted
        #[arg(long)]
        versioning: bool,
        /// An option of the store's own
        #[arg(long = "option", value_name = "KEY=VALUE", value_parser = pair)]
        options: Vec<(String, String)>,
        #[command(flatten)]
        store: Store,
    },
    /// Delete a bucket that is empty
    Delete {
        /// Its name
        name: String,
        /// Delete all that is in it first: objects, their versions and unfinished uploads
        #[arg(long)]
        with_objects: bool,
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        waiting: super::Waiting,
    },
    /// List buckets
    List {
        #[command(flatten)]
        store: Store,
    },
    /// Show a bucket
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        store: Store,
    },
    /// Keep the versions of objects that are overwritten and deleted, or no longer
    Versioning {
        /// The bucket
        name: String,
        /// Whether they are kept
        state: OnOff,
        #[command(flatten)]
        store: Store,
    },
    /// Who may do what with a bucket, in the store's own JSON
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What a bucket's store does by itself with old objects
    #[command(subcommand)]
    Lifecycle(LifecycleCommand),
    /// List uploads that were begun and neither completed nor given up
    Uploads {
        /// The bucket
        name: String,
        /// Only those of keys that begin with this
        #[arg(long, default_value = "")]
        prefix: String,
        /// Only those that were begun longer ago, such as 7d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        older_than: Option<Duration>,
        #[command(flatten)]
        store: Store,
    },
    /// Give an unfinished upload up, with its parts, or all that are older than some time
    ///
    /// What a host or a command that was killed left behind holds its parts, and costs, until somebody gives it up. Whoever
    /// still writes to an upload that is given up has to begin anew: let TIME be longer than any transfer takes.
    Abort {
        /// The bucket
        name: String,
        /// The key that the object would have
        #[arg(
            required_unless_present = "older_than",
            conflicts_with = "older_than",
            requires = "id"
        )]
        key: Option<String>,
        /// The upload, as `novastor bucket uploads` lists it
        id: Option<String>,
        /// All that were begun longer ago, such as 7d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        older_than: Option<Duration>,
        /// Of these, only those of keys that begin with this
        #[arg(long, default_value = "", requires = "older_than")]
        prefix: String,
        #[command(flatten)]
        store: Store,
    },
}

/// Two states.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOff {
    /// Yes
    On,
    /// No
    Off,
}

/// `novastor bucket policy`
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Show it
    Get {
        /// The bucket
        name: String,
        #[command(flatten)]
        store: Store,
    },
    /// Set it
    Set {
        /// The bucket
        name: String,
        /// The policy; - for standard input
        file: PathBuf,
        #[command(flatten)]
        store: Store,
    },
    /// Remove it
    Remove {
        /// The bucket
        name: String,
        #[command(flatten)]
        store: Store,
    },
}

/// `novastor bucket lifecycle`
#[derive(Subcommand, Debug)]
pub enum LifecycleCommand {
    /// Show the rules
    Get {
        /// The bucket
        name: String,
        #[command(flatten)]
        store: Store,
    },
    /// Replace the rules
    ///
    /// The file is JSON: {"rules": [{"id": "old-logs", "enabled": true, "prefix": "logs/", "expire_days": 30}]}. A rule has
    /// any of expire_days, expire_noncurrent_days, abort_upload_days, and transition_days with transition_class.
    Set {
        /// The bucket
        name: String,
        /// The rules; - for standard input
        file: PathBuf,
        #[command(flatten)]
        store: Store,
    },
    /// Remove the rules
    Remove {
        /// The bucket
        name: String,
        #[command(flatten)]
        store: Store,
    },
}

/// How bytes are moved.
#[derive(Args, Clone, Copy, Debug)]
pub struct Moving {
    /// Bytes that are moved by one request; chosen by the object's size if none
    #[arg(long, value_parser = size)]
    pub part_size: Option<u64>,
    /// Requests at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: u16,
    /// Begin anew, and keep nothing from which to go on
    #[arg(long)]
    pub no_resume: bool,
    /// How long to go on trying while the host or the store does not answer
    #[arg(long, value_parser = duration, default_value = "10m")]
    pub patience: Duration,
}

/// What is said of an object.
#[derive(Args, Clone, Debug, Default)]
pub struct Facts {
    /// Its content type
    #[arg(long)]
    pub content_type: Option<String>,
    /// What is to be said of it
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
    /// A tag
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = pair)]
    pub tags: Vec<(String, String)>,
    /// Its storage class
    #[arg(long)]
    pub storage_class: Option<String>,
    /// It goes after this time, such as 7d; 0s: it stays
    #[arg(long, value_parser = duration)]
    pub expire_after: Option<Duration>,
}

/// When an object is written.
#[derive(Args, Clone, Debug, Default)]
pub struct Terms {
    /// Only if there is no such object
    #[arg(long, conflicts_with = "if_match")]
    pub create_only: bool,
    /// Only in place of the object with this ETag
    #[arg(long, value_name = "ETAG")]
    pub if_match: Option<String>,
}

impl Terms {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        !self.create_only && self.if_match.is_none()
    }
}

/// `novastor object put`
#[derive(Args, Clone, Debug)]
pub struct Put {
    /// The file; - for standard input, from which a broken-off transfer cannot go on
    pub file: PathBuf,
    /// Where to
    #[arg(value_name = "BUCKET/KEY", value_parser = place)]
    pub to: Place,
    #[command(flatten)]
    pub terms: Terms,
    #[command(flatten)]
    pub facts: Facts,
    #[command(flatten)]
    pub moving: Moving,
    #[command(flatten)]
    pub store: Store,
}

/// `novastor object get`
#[derive(Args, Clone, Debug)]
pub struct Get {
    /// The object
    #[arg(value_name = "BUCKET/KEY", value_parser = place)]
    pub from: Place,
    /// The file; - for standard output
    pub file: PathBuf,
    /// Only these bytes, counted from 0; the last one may be left out
    #[arg(long, value_name = "FIRST-LAST", value_parser = span)]
    pub range: Option<Span>,
    /// This version of it
    #[arg(long)]
    pub version: Option<String>,
    /// Only if it has this ETag
    #[arg(long, value_name = "ETAG")]
    pub if_match: Option<String>,
    /// Only if it does not have this ETag
    #[arg(long, value_name = "ETAG")]
    pub if_none_match: Option<String>,
    /// Replace a file of that name
    #[arg(long)]
    pub force: bool,
    /// Read the whole file once more to compare it with the sum that the store tells, if that needs it
    #[arg(long)]
    pub verify: bool,
    #[command(flatten)]
    pub moving: Moving,
    #[command(flatten)]
    pub store: Store,
}

/// `novastor object list`
#[derive(Args, Clone, Debug)]
pub struct List {
    /// The bucket
    pub bucket: String,
    /// Only keys that begin with this
    #[arg(long)]
    pub prefix: Option<String>,
    /// Keys that have this after the prefix are listed once, up to it
    #[arg(long)]
    pub delimiter: Option<String>,
    /// Only keys after this one, in the order of bytes
    #[arg(long, value_name = "KEY")]
    pub after: Option<String>,
    /// At most so many
    #[arg(long)]
    pub limit: Option<u64>,
    /// Versions too, those that are not the latest and the markers of deletions
    #[arg(long)]
    pub versions: bool,
    #[command(flatten)]
    pub store: Store,
}

/// `novastor object delete`
#[derive(Args, Clone, Debug)]
pub struct Delete {
    /// The objects
    #[arg(value_name = "BUCKET/KEY", required = true)]
    pub objects: Vec<String>,
    /// This version
    #[arg(long, conflicts_with = "recursive")]
    pub version: Option<String>,
    /// Only if it has this ETag
    #[arg(long, value_name = "ETAG", conflicts_with = "recursive")]
    pub if_match: Option<String>,
    /// All objects whose keys begin with KEY; BUCKET/ for all of a bucket
    #[arg(long, requires = "yes")]
    pub recursive: bool,
    /// Yes, all of them
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub store: Store,
}

/// `novastor object tags`
#[derive(Subcommand, Debug)]
pub enum TagsCommand {
    /// Show them
    Get {
        /// The object
        #[arg(value_name = "BUCKET/KEY", value_parser = place)]
        object: Place,
        /// This version of it
        #[arg(long)]
        version: Option<String>,
        #[command(flatten)]
        store: Store,
    },
    /// Replace them
    Set {
        /// The object
        #[arg(value_name = "BUCKET/KEY", value_parser = place)]
        object: Place,
        /// All its tags
        #[arg(value_name = "NAME=VALUE", value_parser = pair, required = true)]
        tags: Vec<(String, String)>,
        #[command(flatten)]
        store: Store,
    },
    /// Remove them
    Clear {
        /// The object
        #[arg(value_name = "BUCKET/KEY", value_parser = place)]
        object: Place,
        #[command(flatten)]
        store: Store,
    },
}

/// What a signed URL is for.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[value(rename_all = "UPPER")]
pub enum Method {
    /// Reading the object.
    #[default]
    Get,
    /// Writing it whole.
    Put,
    /// Asking about it.
    Head,
    /// Deleting it.
    Delete,
    /// Writing a part of an upload.
    #[value(name = "PUT-PART")]
    PutPart,
}

/// `novastor object sign`
#[derive(Args, Clone, Debug)]
pub struct Sign {
    /// The object
    #[arg(value_name = "BUCKET/KEY", value_parser = place)]
    pub object: Place,
    /// What the URL is for
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    pub method: Method,
    /// For how long it is good
    #[arg(long, value_parser = duration, default_value = "1h")]
    pub expires: Duration,
    /// This version of it
    #[arg(long)]
    pub version: Option<String>,
    /// The upload, for a part
    #[arg(long, value_name = "ID", required_if_eq("method", "PUT-PART"))]
    pub upload: Option<String>,
    /// The part's number
    #[arg(long, value_name = "N", required_if_eq("method", "PUT-PART"))]
    pub part: Option<u32>,
    #[command(flatten)]
    pub store: Store,
}

/// `novastor object`
#[derive(Subcommand, Debug)]
pub enum ObjectCommand {
    /// Write a file to an object; repeated after it broke off, it goes on
    Put(Put),
    /// Read an object into a file; repeated after it broke off, it goes on
    Get(Get),
    /// Show what is known of an object
    Head {
        /// The object
        #[arg(value_name = "BUCKET/KEY", value_parser = place)]
        object: Place,
        /// This version of it
        #[arg(long)]
        version: Option<String>,
        #[command(flatten)]
        store: Store,
    },
    /// List objects
    List(List),
    /// Copy an object within the store
    Copy {
        /// The object
        #[arg(value_name = "BUCKET/KEY", value_parser = place)]
        from: Place,
        /// Where to
        #[arg(value_name = "BUCKET/KEY", value_parser = place)]
        to: Place,
        /// Only if there is no such object there
        #[arg(long)]
        create_only: bool,
        /// Only in place of the object with this ETag
        #[arg(long, value_name = "ETAG", conflicts_with = "create_only")]
        if_match: Option<String>,
        /// Only if the object that is copied has this ETag
        #[arg(long, value_name = "ETAG")]
        source_if_match: Option<String>,
        /// This version of it
        #[arg(long)]
        version: Option<String>,
        #[command(flatten)]
        store: Store,
    },
    /// Delete objects
    Delete(Delete),
    /// Tags of an object
    #[command(subcommand)]
    Tags(TagsCommand),
    /// Change what is said of an object; its content stays
    Change {
        /// The object
        #[arg(value_name = "BUCKET/KEY", value_parser = place)]
        object: Place,
        #[command(flatten)]
        facts: Facts,
        #[command(flatten)]
        store: Store,
    },
    /// Sign a URL, with which anybody may do one thing with an object until it expires
    Sign(Sign),
}

/// A length of time, such as 90s, 10m, 1h or 7d.
pub(in crate::cli) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err("a length of time has a unit: 90s, 10m, 1h, 7d or 2w".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{digits}` is no whole number"))?;
    let secs = number.checked_mul(unit).filter(|secs| *secs <= 100 * 366 * 86_400);
    secs.map(Duration::from_secs).ok_or_else(|| "that is more than a hundred years".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_units() {
        let secs = |text| duration(text).map(|duration| duration.as_secs());
        assert_eq!(secs("90s"), Ok(90));
        assert_eq!(secs("10m"), Ok(600));
        assert_eq!(secs("1h"), Ok(3600));
        assert_eq!(secs("7d"), Ok(604_800));
        assert_eq!(secs("0s"), Ok(0));
        for bad in ["", "7", "d", "-1h", "1.5h", "1y", "99999999999999999999s", "40000d", "1h30m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
