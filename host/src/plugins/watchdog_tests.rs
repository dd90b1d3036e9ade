// SPDX-License-Identifier: Apache-2.0
use super::*;

const MS: Duration = Duration::from_millis(1);

fn times(sleeps: bool, ran: u32, waited: u32) -> Option<ThreadTimes> {
    Some(ThreadTimes { sleeps, ran: ran * MS, waited: waited * MS })
}

#[test]
fn a_word_holds_meter_call_and_sequence() {
    let word = Word::new(7, Call::Drop, u32::MAX);
    assert_eq!((word.meter(), word.call()), (7, Some(Call::Drop)));
    assert!(Word::new(1, Call::Open, 0) != Word(0));
}

#[test]
fn a_sleeping_call_is_reported_once_as_first_and_then_grows() {
    let (start, word) = (Instant::now(), Word::new(1, Call::Read, 1));
    let mut tracker = Tracker::default();
    assert_eq!(tracker.sample(word, start, || unreachable!()), None);
    assert_eq!(tracker.sample(word, start + 5 * MS, || times(true, 0, 0)), None);
    assert_eq!(tracker.sample(word, start + 9 * MS, || times(true, 0, 0)), None);
    let held = tracker.sample(word, start + 10 * MS, || times(true, 0, 0));
    assert_eq!(held, Some(Held { time: 10 * MS, first: true }));
    let held = tracker.sample(word, start + 15 * MS, || times(true, 0, 0));
    assert_eq!(held, Some(Held { time: 15 * MS, first: false }));
}

#[test]
fn waiting_for_a_processor_is_not_the_drivers_fault() {
    let (start, word) = (Instant::now(), Word::new(1, Call::Read, 1));
    let mut tracker = Tracker::default();
    tracker.sample(word, start, || unreachable!());
    tracker.sample(word, start, || times(false, 100, 50));
    // Runnable for a second, but it ran for 9 ms.
    assert_eq!(tracker.sample(word, start + 1000 * MS, || times(false, 109, 50)), None);
    // Asleep now, after waiting for all but 9 ms.
    assert_eq!(tracker.sample(word, start + 1000 * MS, || times(true, 109, 1041)), None);
    let held = tracker.sample(word, start + 1000 * MS, || times(false, 110, 50));
    assert_eq!(held, Some(Held { time: 10 * MS, first: true }));
}

#[test]
fn a_late_look_counts_one_round_before_it() {
    let (start, word) = (Instant::now(), Word::new(1, Call::Read, 1));
    let mut tracker = Tracker::default();
    tracker.sample(word, start, || unreachable!());
    assert_eq!(tracker.sample(word, start + 80 * MS, || times(true, 0, 0)), None);
    assert_eq!(tracker.sample(word, start + 84 * MS, || times(true, 0, 0)), None);
    let held = tracker.sample(word, start + 85 * MS, || times(true, 0, 0));
    assert_eq!(held, Some(Held { time: 10 * MS, first: true }));
}

#[test]
fn another_call_starts_anew() {
    let start = Instant::now();
    let mut tracker = Tracker::default();
    for sequence in 0..10 {
        let word = Word::new(1, Call::Read, sequence);
        let now = start + sequence * 5 * MS;
        assert_eq!(tracker.sample(word, now, || unreachable!()), None);
    }
    assert_eq!(tracker.sample(Word(0), start + 60 * MS, || unreachable!()), None);
    assert_eq!(
        tracker.sample(Word::new(1, Call::Read, 9), start + 90 * MS, || unreachable!()),
        None
    );
}

#[test]
fn without_the_kernels_figures_the_clock_counts() {
    let (start, word) = (Instant::now(), Word::new(1, Call::Flush, 1));
    let mut tracker = Tracker::default();
    tracker.sample(word, start, || None);
    let held = tracker.sample(word, start + 12 * MS, || None);
    assert_eq!(held, Some(Held { time: 12 * MS, first: true }));
}

#[test]
fn a_threads_figures_are_read() {
    let read = ThreadTimes::parse("5000000 7000000 12\n", "12 (a) R (b) S 1 2").expect("figures");
    assert!(read.sleeps);
    assert_eq!((read.ran, read.waited), (5 * MS, 7 * MS));
    assert!(ThreadTimes::parse("x", "12 (a) S").is_none());
    assert!(ThreadTimes::read(rustix::thread::gettid().as_raw_nonzero().get()).is_some());
}

#[test]
fn marks_nest() {
    let meter = DriverMeter::new("nested");
    let word = || SLOT.get().map(|slot| Word(slot.word.load(Ordering::Relaxed)));
    let outer = Mark::new(&meter, Call::Read);
    let first = word();
    drop(Mark::new(&meter, Call::Drop));
    assert!(word() == first);
    drop(outer);
    assert!(word() == Some(Word(0)));
}
