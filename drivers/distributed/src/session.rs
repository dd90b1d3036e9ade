// SPDX-License-Identifier: Apache-2.0
//! Sessions: what each of them has written and seen, and therefore how old what it reads may be.

use std::sync::{Arc, Mutex, PoisonError};

use distributed_core::{Mode, Point, View};
use driver_api::{Error, ErrorKind, Result, ext};

use crate::volume::DistributedVolume;

/// A session with an attached volume.
#[derive(Debug)]
pub(crate) struct Session {
    level: ext::Consistency,
    /// The highest point that it must not read behind.
    point: Mutex<Point>,
}

impl Session {
    /// One that must not read behind this point.
    pub fn new(level: ext::Consistency, point: Point) -> Self {
        Self { level, point: Mutex::new(point) }
    }

    fn point(&self) -> Point {
        *self.point.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rise(&self, to: Point) {
        let mut point = self.point.lock().unwrap_or_else(PoisonError::into_inner);
        *point = to.max(*point);
    }

    /// How old what it reads now may be.
    pub fn view(&self) -> View {
        if self.level == ext::Consistency::STRONG {
            return View::Latest;
        }
        match self.point() {
            point if point == Point::default() => View::Consistent,
            point => View::AtLeast(point),
        }
    }

    /// A write of it ended at this point.
    pub fn wrote(&self, point: Point) {
        self.rise(point);
    }

    /// A read of it saw this point. Where readers may go back in time it binds nobody; what a session wrote itself does.
    pub fn saw(&self, point: Point) {
        if self.level != ext::Consistency::EVENTUAL {
            self.rise(point);
        }
    }
}

/// Reads a token: `EPOCH.SEQUENCE`.
fn parse(token: &str) -> Result<Point> {
    if token.is_empty() {
        return Ok(Point::default());
    }
    let numbers = token.split_once('.');
    let point = numbers.and_then(|(epoch, sequence)| {
        Some(Point { epoch: epoch.parse().ok()?, sequence: sequence.parse().ok()? })
    });
    point.ok_or_else(|| {
        Error::new(ErrorKind::INVALID_ARGUMENT, "this is no token of a session")
            .with("token", token)
            .remedy("give one as it was told, or none")
    })
}

/// A token of this point.
pub(crate) fn token(point: Point) -> String {
    format!("{}.{}", point.epoch, point.sequence)
}

impl ext::Sessions<DistributedVolume> for DistributedVolume {
    fn consistency(&self) -> Result<ext::Consistency> {
        let engine = self.attached.engine();
        Ok(match engine.status()?.mode {
            // All replicas are the same.
            Mode::Synchronous => ext::Consistency::STRONG,
            Mode::Asynchronous => engine.readers(),
        })
    }

    fn open(&self, token: &str) -> Result<Self> {
        let point = parse(token)?;
        // One of this attachment that nobody was given yet would be waited for in vain.
        let latest = self.attached.engine().status()?.point;
        if point.epoch > latest.epoch {
            return Err(Error::new(
                ErrorKind::INVALID_ARGUMENT,
                "the token is of another volume, or of an attachment that is still to come",
            )
            .with("token", token)
            .remedy("give one of this volume"));
        }
        let session = Session::new(self.consistency()?, point);
        Ok(Self { attached: Arc::clone(&self.attached), session: Some(Arc::new(session)) })
    }

    fn token(&self, session: &Self) -> Result<String> {
        let point = session.session.as_ref().map(|session| session.point());
        Ok(token(point.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Point = Point { epoch: 2, sequence: 5 };
    const EARLIER: Point = Point { epoch: 1, sequence: 9 };

    #[test]
    fn a_causal_session_never_goes_back_behind_what_it_wrote_or_saw() {
        let session = Session::new(ext::Consistency::CAUSAL, Point::default());
        assert_eq!(session.view(), View::Consistent);
        session.saw(EARLIER);
        assert_eq!(session.view(), View::AtLeast(EARLIER));
        session.wrote(LATER);
        session.saw(EARLIER);
        assert_eq!(session.view(), View::AtLeast(LATER));
    }

    #[test]
    fn an_eventual_session_is_bound_by_its_own_writes_only_and_a_strong_one_always_sees_the_latest()
    {
        let session = Session::new(ext::Consistency::EVENTUAL, Point::default());
        session.saw(LATER);
        assert_eq!(session.view(), View::Consistent);
        session.wrote(EARLIER);
        assert_eq!(session.view(), View::AtLeast(EARLIER));
        let strong = Session::new(ext::Consistency::STRONG, Point::default());
        assert_eq!(strong.view(), View::Latest);
    }

    #[test]
    fn tokens_are_read_as_they_are_told() {
        assert_eq!(parse(&token(LATER)).unwrap(), LATER);
        assert_eq!(parse("").unwrap(), Point::default());
        for bad in ["5", "a.b", "1.", ".", "1.2.3", "-1.2"] {
            assert_eq!(parse(bad).unwrap_err().kind(), ErrorKind::INVALID_ARGUMENT, "{bad}");
        }
    }
}
