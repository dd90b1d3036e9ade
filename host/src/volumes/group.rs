// SPDX-License-Identifier: Apache-2.0
//! Snapshots of several volumes at one point, whatever their drivers.
//!
//! ```text
//!   turn of each, by name -> each attached, asked -> noted in all records
//!     -> changes of all held, those under way end        <- the point: nothing is half done on any of them
//!     -> each takes its snapshot -> changes go on
//!     -> the notes go, in one transaction: the group is there
//!        | a step failed, or the pause grew too long: changes go on, and what was taken is deleted
//! ```
//! Changes come only through the attachments of this host, which holds them: so a change of one volume that was begun
//! after another's was answered is in a snapshot only if that other one is.
//!
//! A host that is killed in between leaves the notes. They name what recovery deletes: until they are gone together,
//! the group is not there.

use std::time::{Duration, Instant};

use driver_api::{
    Abilities, Error, ErrorKind, OpContext, Result, Retry, ext::SnapshotInfo, state::Transaction,
};
use tokio::{task::JoinSet, time::timeout_at};

use super::{
    attach::{Access, Use},
    backends::{CONTROL_TIMEOUT, control},
    lifecycle::changed_nothing,
    locks::Turn,
    record::VolumeRecord,
    room::Stored,
    service::Volumes,
};
use crate::config::validate_name;

/// The most volumes of one group: their records change in one transaction.
pub const MAX_GROUP: usize = 32;
/// How long a refused group waits for snapshots that are still being taken, before it leaves them to a task.
const LATE: Duration = Duration::from_secs(5);
/// How long changes are held at most, where nobody says another time.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a group of snapshots shall be.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// The volumes, each once.
    pub volumes: Vec<String>,
    /// The name of each snapshot.
    pub name: String,
    /// How long changes of the volumes are held at most; at most a minute.
    pub longest_pause: Duration,
}

/// Snapshots of one point.
#[derive(Clone, Debug)]
pub struct Group {
    /// How long changes were held.
    pub paused: Duration,
    /// The volumes, by name, and their snapshots.
    pub snapshots: Vec<(String, SnapshotInfo)>,
}

/// A volume of the group, of which nobody else changes the life meanwhile.
struct Member {
    _turn: Turn,
    stored: Stored<VolumeRecord>,
    used: Use,
}

/// What became of a member's snapshot; `None`: it was not asked for it.
type Answer = Option<Result<SnapshotInfo>>;
/// Snapshots that are being taken, by the member's number.
type Taking = JoinSet<(usize, Result<SnapshotInfo>)>;

/// How far a group came.
struct Taken {
    paused: Duration,
    /// Whether all were asked for their snapshots.
    asked: bool,
    answers: Vec<Answer>,
    /// Those that did not answer in time.
    taking: Taking,
    failure: Option<Error>,
}

impl Volumes {
    /// Takes a snapshot of each volume, all at one point, or of none.
    ///
    /// Changes of the volumes are held meanwhile, for at most `longest_pause`; reads go on. A snapshot that its driver
    /// does not end in time is deleted when it ends, and keeps its volume's turn until then.
    pub async fn snapshot_group(&self, group: NewGroup) -> Result<Group> {
        let names = check(&group)?;
        let mut members = self.gather(&names, &group.name).await?;
        for member in &mut members {
            member.stored.record.taking = Some(group.name.clone());
        }
        let mut taken = match self.save_together(&mut members).await {
            Ok(()) => take(&members, &group).await,
            Err(error) => Taken { failure: Some(error), ..Taken::nothing(members.len()) },
        };
        if taken.failure.is_none() {
            for member in &mut members {
                member.stored.record.taking = None;
            }
            taken.failure = self.save_together(&mut members).await.err();
        }
        if let Some(error) = taken.failure.take() {
            return Err(self.undo(members, taken, &group.name, error).await);
        }
        let (paused, mut snapshots) = (taken.paused, Vec::new());
        for (member, answer) in members.into_iter().zip(taken.answers) {
            if let Some(Ok(info)) = answer {
                snapshots.push((member.stored.name.clone(), info));
            }
            self.leave(member).await;
        }
        tracing::info!(snapshot = group.name, ?names, ?paused, "snapshots of one point are taken");
        Ok(Group { paused, snapshots })
    }

    /// Takes the turns of all volumes, attaches them and asks whether they are able to.
    async fn gather(&self, names: &[String], snapshot: &str) -> Result<Vec<Member>> {
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            match self.join(name, snapshot).await {
                Ok(member) => members.push(member),
                Err(error) => {
                    for member in members {
                        self.leave(member).await;
                    }
                    return Err(error.during("snapshot create"));
                }
            }
        }
        Ok(members)
    }

    async fn join(&self, name: &str, snapshot: &str) -> Result<Member> {
        let turn = self.turn(name, "snapshot create").await?;
        let mut stored = self.usable(name).await?;
        let used = self.attach_in_turn(&mut stored, Access::Write, "snapshot", false).await?;
        let member = Member { _turn: turn, stored, used };
        match member.is_able(snapshot).await {
            Ok(()) => Ok(member),
            Err(error) => {
                self.leave(member).await;
                Err(error)
            }
        }
    }

    async fn leave(&self, mut member: Member) {
        if let Err(error) = self.release_in_turn(&mut member.stored, member.used).await {
            let volume = &member.stored.name;
            tracing::error!(volume, "detach after the operation failed: {error:#}");
        }
    }

    /// Saves all records, or none.
    async fn save_together(&self, members: &mut [Member]) -> Result<()> {
        let records = &self.0.records;
        let mut transaction = Transaction::new();
        for Member { stored, .. } in &*members {
            let key = records.key(&stored.name);
            let record = records.encode(&stored.record)?;
            transaction = transaction.expect(&key, stored.revision).put(&key, &record);
        }
        let revision = records.commit(transaction).await?.revision;
        members.iter_mut().for_each(|member| member.stored.revision = revision);
        Ok(())
    }

    /// Deletes what was taken, and what is still being taken when that ends. Gives the error with what is left to say.
    async fn undo(
        &self,
        members: Vec<Member>,
        mut taken: Taken,
        snapshot: &str,
        error: Error,
    ) -> Error {
        let until = tokio::time::Instant::now() + LATE;
        while let Ok(Some(ended)) = timeout_at(until, taken.taking.join_next()).await {
            if let Ok((number, answer)) = ended {
                taken.answers[number] = Some(answer);
            }
        }
        let (mut late, mut left) = (Vec::new(), Vec::new());
        for (number, member) in members.into_iter().enumerate() {
            let answer = taken.answers[number].take();
            if answer.is_none() && taken.asked {
                late.push((number, member));
                continue;
            }
            let name = member.stored.name.clone();
            if let Err(why) = self.undo_one(member, answer, snapshot).await {
                left.push(format!("{why:#}: novastor snapshot delete {name} {snapshot}"));
            }
        }
        if late.is_empty() && left.is_empty() {
            return error.with("left of the group", "nothing");
        }
        for (_, member) in &late {
            let name = &member.stored.name;
            left.push(format!("that of `{name}` is still being taken, and deleted when it ends"));
        }
        let (volumes, snapshot) = (self.clone(), snapshot.to_owned());
        tokio::spawn(async move { volumes.undo_late(late, taken.taking, &snapshot).await });
        error.with("left of the group", left.join("; "))
    }

    async fn undo_late(&self, mut late: Vec<(usize, Member)>, mut taking: Taking, snapshot: &str) {
        while let Some(ended) = taking.join_next().await {
            let Ok((number, answer)) = ended else { continue };
            if let Some(at) = late.iter().position(|(other, _)| *other == number) {
                let (_, member) = late.swap_remove(at);
                // What fails is in the volume's note and in the log.
                let _ = self.undo_one(member, Some(answer), snapshot).await;
            }
        }
        // It is unknown what became of those.
        for (_, member) in late {
            let never = Error::new(ErrorKind::INTERNAL, "the task that took it ended early");
            let _ = self.undo_one(member, Some(Err(never)), snapshot).await;
        }
    }

    /// Deletes a member's snapshot of a group that is not to be. What cannot be deleted is noted in the volume's record.
    async fn undo_one(&self, mut member: Member, answer: Answer, snapshot: &str) -> Result<()> {
        let may_be_there = match answer {
            None => false,
            Some(Ok(_)) => true,
            Some(Err(error)) => !changed_nothing(error.kind()),
        };
        let deleted = match may_be_there {
            true => delete(&member.used, snapshot).await,
            false => Ok(()),
        };
        let noted = self.forget_group(&mut member.stored, snapshot, &deleted).await;
        if let Err(error) = &noted {
            let volume = &member.stored.name;
            tracing::error!(volume, snapshot, "left to recovery: {error:#}");
        }
        self.leave(member).await;
        deleted
    }

    /// The group is given up: says in the volume's record what is left of it.
    async fn forget_group(
        &self,
        stored: &mut Stored<VolumeRecord>,
        snapshot: &str,
        deleted: &Result<()>,
    ) -> Result<()> {
        stored.record.taking = None;
        if let Err(error) = deleted {
            let volume = &stored.name;
            tracing::error!(volume, snapshot, "a snapshot of no group is left: {error:#}");
            stored.record.note = Some(format!(
                "snapshot {snapshot} may be left of a group that was not taken ({error}): \
                 novastor snapshot delete {volume} {snapshot}"
            ));
        }
        self.0.records.save(stored).await
    }

    /// Deletes what a crash left of a group that this volume was to be of.
    pub(super) async fn recover_group(&self, stored: &mut Stored<VolumeRecord>) -> Result<()> {
        let Some(snapshot) = stored.record.taking.clone() else { return Ok(()) };
        let volume = stored.name.clone();
        tracing::info!(volume, snapshot, "a group of snapshots was interrupted: deleting it");
        let used = match self.attach_in_turn(stored, Access::Write, "recovery", false).await {
            Ok(used) => used,
            Err(error) => return self.forget_group(stored, &snapshot, &Err(error)).await,
        };
        let deleted = delete(&used, &snapshot).await;
        let noted = self.forget_group(stored, &snapshot, &deleted).await;
        if let Err(error) = self.release_in_turn(stored, used).await {
            tracing::error!(volume, "detach after the operation failed: {error:#}");
        }
        noted
    }
}

impl Member {
    async fn is_able(&self, snapshot: &str) -> Result<()> {
        let volume = self.used.volume();
        let name = &self.stored.name;
        if !volume.capabilities()?.has(Abilities::SNAPSHOT) {
            let why = format!("volume `{name}` cannot have snapshots: no `snapshot`");
            return Err(Error::new(ErrorKind::UNSUPPORTED, why)
                .remedy("leave it out; what backends can do: novastor backend list"));
        }
        let listing = volume.snapshot_list(&control());
        let listed = self.used.backend().call("snapshot list", listing).await?;
        if listed.iter().any(|other| other.name == snapshot) {
            let why = format!("volume `{name}` has a snapshot `{snapshot}`");
            return Err(Error::new(ErrorKind::ALREADY_EXISTS, why)
                .remedy(format!("choose another name, or: novastor snapshot list {name}")));
        }
        Ok(())
    }
}

impl Taken {
    fn nothing(members: usize) -> Self {
        Self {
            paused: Duration::ZERO,
            asked: false,
            answers: (0..members).map(|_| None).collect(),
            taking: JoinSet::new(),
            failure: None,
        }
    }
}

/// The group's volumes in the order in which their turns are taken.
fn check(group: &NewGroup) -> Result<Vec<String>> {
    validate_name("snapshot", &group.name)?;
    let invalid = |why: String, remedy: &str| {
        Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).during("snapshot create").remedy(remedy))
    };
    let mut names = group.volumes.clone();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return invalid(format!("volume `{}` is named twice", twice[0]), "name each volume once");
    }
    if names.is_empty() || names.len() > MAX_GROUP {
        let why = format!("a group has 1 to {MAX_GROUP} volumes, not {}", names.len());
        return invalid(why, "take snapshots of fewer volumes at one point");
    }
    if group.longest_pause.is_zero() || group.longest_pause > CONTROL_TIMEOUT {
        let why = format!("changes cannot be held for {:?}", group.longest_pause);
        return invalid(why, "choose a longest pause from 1 to 60 seconds");
    }
    Ok(names)
}

/// Holds the changes of all members while each takes its snapshot. They go on when this returns, or is dropped.
async fn take(members: &[Member], group: &NewGroup) -> Taken {
    let begun = Instant::now();
    let until = tokio::time::Instant::from_std(begun + group.longest_pause);
    let mut taken = Taken::nothing(members.len());
    let mut pauses = Vec::with_capacity(members.len());
    for member in members {
        match member.used.volume().pause() {
            Some(pause) => pauses.push(pause),
            None => {
                let why = format!("changes of volume `{}` are held already", member.stored.name);
                taken.failure = Some(Error::new(ErrorKind::IN_USE, why).remedy("try again"));
                return taken;
            }
        }
    }
    for (member, pause) in members.iter().zip(&pauses) {
        if timeout_at(until, pause.settled()).await.is_err() {
            let what = "a change that was under way did not end";
            taken.failure = Some(too_long(&[&member.stored.name], what, group));
            return taken;
        }
    }
    taken.asked = true;
    for (number, member) in members.iter().enumerate() {
        let left = group.longest_pause.saturating_sub(begun.elapsed());
        let cx = OpContext::new().with_timeout(left).with_epoch(member.used.epoch());
        let creating = member.used.volume().snapshot_create(&cx, &group.name);
        taken.taking.spawn(async move { (number, creating.await) });
    }
    while !taken.taking.is_empty() {
        let Ok(ended) = timeout_at(until, taken.taking.join_next()).await else {
            let missing = members.iter().zip(&taken.answers).filter(|(_, answer)| answer.is_none());
            let missing: Vec<&str> = missing.map(|(one, _)| one.stored.name.as_str()).collect();
            taken.failure = Some(too_long(&missing, "the snapshot was not taken", group));
            break;
        };
        let Some(Ok((number, answer))) = ended else {
            let why = "a task that took a snapshot ended early";
            taken.failure = Some(Error::new(ErrorKind::INTERNAL, why));
            break;
        };
        let Member { stored, used, .. } = &members[number];
        let answer = used.backend().note("snapshot create", answer);
        if let Err(error) = &answer {
            taken.failure = Some(error.clone().with("volume", &stored.name));
        }
        taken.answers[number] = Some(answer);
        if taken.failure.is_some() {
            break;
        }
    }
    drop(pauses);
    taken.paused = begun.elapsed();
    taken
}

fn too_long(volumes: &[&str], what: &str, group: &NewGroup) -> Error {
    let limit = group.longest_pause;
    Error::new(ErrorKind::TIMED_OUT, format!("{what} within the longest pause, {limit:?}"))
        .during("snapshot create")
        .with("volume", volumes.join(", "))
        .with_retry(Retry::TEMPORARY)
        .remedy("try again when there is less load, or allow a longer one: --longest-pause 30")
}

/// Deletes a snapshot that may be there.
async fn delete(used: &Use, snapshot: &str) -> Result<()> {
    let deleting = used.volume().snapshot_delete(&control(), snapshot);
    match used.backend().call("snapshot delete", deleting).await {
        Err(error) if error.kind() != ErrorKind::NOT_FOUND => Err(error),
        _ => Ok(()),
    }
}
