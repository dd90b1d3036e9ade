// SPDX-License-Identifier: Apache-2.0
//! What this host is called where it attaches volumes, and whether another such text means an earlier life of itself.
//!
//! A host is who has its state, which one process has at a time: whoever had it before is dead, although a backend may think
//! for a while that its attachments live. Lives are counted in the state, because a process may get the number of an earlier
//! one, in a container always. A copy of the state makes a second host of the same name; what it takes from the first one is
//! fenced by the backend like any take-over, so that no data is lost by it.

use driver_api::{Error, ErrorKind, Result, StateHandle};
use serde::{Deserialize, Serialize};

use super::room::Room;

/// Where its record is.
const ROOM: &str = "host/";
const NAME: &str = "life";
/// The context of a refusal that names a holder; there is one for each.
const HOLDER: &str = "holder";

/// Which host this is, and how often it has begun.
#[derive(Serialize, Deserialize)]
struct Life {
    host: String,
    number: u64,
}

/// Begins another life; `who` describes the process to people.
pub async fn begin_life(state: &StateHandle, who: &str) -> Result<String> {
    let room = Room::<Life>::new(state.clone(), ROOM);
    let life = match room.get(NAME).await? {
        Some(mut stored) => {
            stored.record.number += 1;
            room.save(&mut stored).await?;
            stored.record
        }
        None => {
            let first = room.create(NAME, Life { host: new_host()?, number: 1 }).await?;
            let taken =
                || Error::new(ErrorKind::INTERNAL, "another process writes this host's state");
            first.ok_or_else(|| taken().remedy("see that no other host uses this state"))?.record
        }
    };
    Ok(format!("{who} (host {}, life {})", life.host, life.number))
}

fn new_host() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::from_io("the kernel gives no random identity for this host", &error)
            .with("path", path)
            .remedy("mount /proc")
    })?;
    Ok(text.chars().filter(char::is_ascii_hexdigit).take(16).collect())
}

/// The host and the number of its life in a text that [`begin_life`] made.
fn life_of(owner: &str) -> Option<(&str, u64)> {
    let (_, life) = owner.strip_suffix(')')?.rsplit_once(" (host ")?;
    let (host, number) = life.split_once(", life ")?;
    let is_host = host.len() == 16 && host.chars().all(|c| c.is_ascii_hexdigit());
    Some((host, number.parse().ok().filter(|_| is_host)?))
}

/// Whether all who have the volume that `refused` names are earlier lives of this host.
pub(super) fn is_only_held_by_the_dead(own: &str, refused: &Error) -> bool {
    let Some((host, number)) = life_of(own) else { return false };
    let is_earlier =
        |holder: &str| life_of(holder).is_some_and(|(its, when)| its == host && when < number);
    let mut holders = refused.context().filter(|(key, _)| *key == HOLDER).peekable();
    refused.kind() == ErrorKind::IN_USE
        && holders.peek().is_some()
        && holders.all(|(_, holder)| is_earlier(holder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::open_embedded;

    fn refused(holders: &[&str]) -> Error {
        let error = Error::new(ErrorKind::IN_USE, "it is attached");
        holders.iter().fold(error, |error, holder| error.with(HOLDER, holder))
    }

    #[tokio::test]
    async fn lives_of_a_host_are_told_from_each_other_and_from_those_of_others() {
        let room = tempfile::tempdir().expect("a directory");
        let open =
            |name: &str| StateHandle::new(open_embedded(&room.path().join(name)).expect("a state"));
        let state = open("state");
        let first = begin_life(&state, "novastor on a, process 1").await.expect("begun");
        let second = begin_life(&state, "novastor on a, process 1").await.expect("begun");
        let other = begin_life(&open("other"), "novastor on a, process 1").await.expect("begun");
        assert!(first.starts_with("novastor on a, process 1 (host "), "{first}");
        assert!(first.ends_with(", life 1)") && second.ends_with(", life 2)"), "{second}");

        assert!(is_only_held_by_the_dead(&second, &refused(&[&first])));
        // Not itself, not who comes later, not another host, and not if one of several is another.
        for holders in [
            vec![second.as_str()],
            vec![other.as_str()],
            vec![first.as_str(), other.as_str()],
            vec!["novastor on a, process 1"],
            vec![],
        ] {
            assert!(!is_only_held_by_the_dead(&second, &refused(&holders)), "{holders:?}");
        }
        assert!(!is_only_held_by_the_dead(&first, &refused(&[&second])));
        assert!(!is_only_held_by_the_dead("this test", &refused(&["this test"])));
        let fenced = Error::new(ErrorKind::FENCED, "another has it").with(HOLDER, &first);
        assert!(!is_only_held_by_the_dead(&second, &fenced));
    }

    #[test]
    fn what_is_no_life_is_none() {
        for text in [
            "",
            "a (host 12, life 3)",
            "a (host 0123456789abcdeg, life 3)",
            "a (host 0123456789abcdef, life x)",
        ] {
            assert_eq!(life_of(text), None, "{text}");
        }
        assert_eq!(life_of("a (host 0123456789abcdef, life 3)"), Some(("0123456789abcdef", 3)));
    }
}
