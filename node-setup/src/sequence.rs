//! The order of the entrypoint's steps, as a state machine: what happened in, what to do next out. Pure.
//!
//! Invariants: the plugins are on the host before the daemon runs; the list that makes the node accept pods is put there only
//! after the daemon has said that it serves; a daemon that was started is ended before we end; every wait has a limit.
//! Driven by [`crate::supervise`], and by tests without a process.

use std::time::Duration;

/// Pauses and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Between two questions whether the daemon serves.
    pub health_pause: Duration,
    /// From its start until it serves.
    pub health: Duration,
    /// From a request to end until it is killed.
    pub grace: Duration,
}

impl Default for Limits {
    /// Twenty questions per second while a node joins cost nothing and each makes it ready sooner. A daemon that does not serve
    /// within ten minutes waits for something that a restart with its reasons in the log makes visible: on EKS the liveness
    /// probe is sooner. The grace is below the 10 s after which kubelet kills the container.
    fn default() -> Self {
        Self {
            health_pause: Duration::from_millis(50),
            health: Duration::from_secs(600),
            grace: Duration::from_secs(8),
        }
    }
}

/// A signal to end or to do something, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

/// `SIGTERM`.
pub const TERM: Signal = Signal(15);
/// `SIGKILL`.
pub const KILL: Signal = Signal(9);
/// Those that ask a program to end: HUP, INT, QUIT, TERM.
const ENDING: [Signal; 4] = [Signal(1), Signal(2), Signal(3), TERM];

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Well.
    Well,
    /// Not; the driver has said why.
    Failed,
}

/// Whether the daemon serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It said so.
    Serving,
    /// It said something else, or nothing.
    NotYet,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The plugins were copied, or not.
    Installed(Done),
    /// The daemon was started, or not.
    Started(Done),
    /// It was asked.
    Asked(Health),
    /// The last pause is over; so long ago the daemon started, or was asked to end.
    Waited(Duration),
    /// The list was put in place, or not.
    Listed(Done),
    /// The daemon ended with this status.
    DaemonEnded(u8),
    /// Somebody sent us a signal.
    Received(Signal),
}

/// What to do next. Whatever takes time is answered by its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Copy the plugins.
    Install,
    /// Start the daemon.
    Start,
    /// Ask whether it serves.
    AskHealth,
    /// Wait at most so long for anything to happen; `None`: for ever.
    Wait(Option<Duration>),
    /// Put the list in place.
    PutList,
    /// Send the daemon a signal.
    Forward(Signal),
    /// Send the daemon a signal, because it did not serve in time.
    GiveUp(Signal),
    /// End with this status.
    Exit(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Installing,
    Starting,
    Asking,
    Listing,
    Serving,
    /// With the status to end with, if it is not the daemon's.
    Ending(Option<u8>),
}

/// The entrypoint.
#[derive(Debug)]
pub struct Sequence {
    limits: Limits,
    state: State,
    /// A request to end that came before there was a daemon.
    pending: Option<Signal>,
}

/// Status of a program that failed.
const FAILED: u8 = 1;

impl Sequence {
    /// The sequence and its first action.
    pub fn begin(limits: Limits) -> (Self, Action) {
        let sequence = Self {
            limits,
            state: State::Installing,
            pending: None,
        };
        (sequence, Action::Install)
    }

    /// What to do after an event.
    pub fn next(&mut self, event: Event) -> Action {
        match (self.state, event) {
            // The driver goes on with its step, and says how it ended.
            (State::Installing | State::Starting, Event::Received(signal)) => {
                if ENDING.contains(&signal) {
                    self.pending = Some(signal);
                }
                Action::Wait(None)
            }
            (State::Installing, Event::Installed(Done::Well)) => match self.pending {
                Some(signal) => Action::Exit(killed_by(signal)),
                None => self.enter(State::Starting, Action::Start),
            },
            (State::Starting, Event::Started(Done::Well)) => match self.pending {
                Some(signal) => self.forward(signal),
                None => self.enter(State::Asking, Action::AskHealth),
            },
            (_, Event::Installed(_) | Event::Started(_)) => Action::Exit(FAILED),
            (State::Ending(Some(status)), Event::DaemonEnded(_)) => Action::Exit(status),
            (_, Event::DaemonEnded(status)) => Action::Exit(status),
            (_, Event::Received(signal)) => self.forward(signal),
            (State::Ending(_), Event::Waited(_)) => Action::Forward(KILL),
            (State::Ending(_), Event::Asked(_) | Event::Listed(_)) => self.wait(),
            (State::Asking, Event::Asked(Health::Serving)) => self.enter(State::Listing, Action::PutList),
            (State::Asking, Event::Asked(Health::NotYet)) => Action::Wait(Some(self.limits.health_pause)),
            (State::Asking, Event::Waited(since)) if since >= self.limits.health => {
                self.enter(State::Ending(Some(FAILED)), Action::GiveUp(TERM))
            }
            (State::Asking, Event::Waited(_)) => Action::AskHealth,
            (State::Listing, Event::Listed(Done::Well)) => self.enter(State::Serving, Action::Wait(None)),
            // Without the list the node takes no pods, and only a restart tries again.
            (State::Listing, Event::Listed(Done::Failed)) => {
                self.enter(State::Ending(Some(FAILED)), Action::GiveUp(TERM))
            }
            // An answer to what is no longer asked.
            _ => self.wait(),
        }
    }

    /// After a signal was sent: wait for what it leads to.
    pub fn wait(&self) -> Action {
        match self.state {
            State::Ending(_) => Action::Wait(Some(self.limits.grace)),
            State::Asking => Action::Wait(Some(self.limits.health_pause)),
            State::Installing | State::Starting | State::Listing | State::Serving => Action::Wait(None),
        }
    }

    fn enter(&mut self, state: State, action: Action) -> Action {
        self.state = state;
        action
    }

    /// The daemon decides what a signal means. One that ends programs starts the grace.
    fn forward(&mut self, signal: Signal) -> Action {
        if ENDING.contains(&signal) && !matches!(self.state, State::Ending(_)) {
            self.state = State::Ending(None);
        }
        Action::Forward(signal)
    }
}

/// The status that shells give a program that a signal ended.
pub fn killed_by(signal: Signal) -> u8 {
    u8::try_from(128 + signal.0).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        health_pause: Duration::from_secs(1),
        health: Duration::from_secs(60),
        grace: Duration::from_secs(8),
    };
    const HANGUP: Signal = Signal(1);
    const USER_1: Signal = Signal(10);

    /// A sequence that has gone through these events.
    fn after(events: &[Event]) -> (Sequence, Action) {
        let (mut sequence, mut action) = Sequence::begin(LIMITS);
        for event in events {
            action = sequence.next(*event);
        }
        (sequence, action)
    }

    const STARTED: [Event; 2] = [Event::Installed(Done::Well), Event::Started(Done::Well)];
    const SERVING: [Event; 4] = [
        Event::Installed(Done::Well),
        Event::Started(Done::Well),
        Event::Asked(Health::Serving),
        Event::Listed(Done::Well),
    ];

    #[test]
    fn the_list_comes_only_after_the_daemon_serves_and_the_plugins_before_it_runs() {
        let (mut sequence, first) = Sequence::begin(LIMITS);
        assert_eq!(first, Action::Install);
        let expected = [
            (Event::Installed(Done::Well), Action::Start),
            (Event::Started(Done::Well), Action::AskHealth),
            (Event::Asked(Health::NotYet), Action::Wait(Some(LIMITS.health_pause))),
            (Event::Waited(Duration::from_secs(1)), Action::AskHealth),
            (Event::Asked(Health::Serving), Action::PutList),
            (Event::Listed(Done::Well), Action::Wait(None)),
            (Event::DaemonEnded(3), Action::Exit(3)),
        ];
        for (event, action) in expected {
            assert_eq!(sequence.next(event), action, "{event:?}");
        }
    }

    #[test]
    fn a_step_that_fails_ends_it_with_nothing_started_after() {
        assert_eq!(after(&[Event::Installed(Done::Failed)]).1, Action::Exit(1));
        assert_eq!(
            after(&[Event::Installed(Done::Well), Event::Started(Done::Failed)]).1,
            Action::Exit(1)
        );
        assert_eq!(
            after(&[&STARTED[..], &[Event::DaemonEnded(78)]].concat()).1,
            Action::Exit(78)
        );
    }

    #[test]
    fn a_daemon_that_never_serves_is_ended_at_the_limit() {
        let (mut sequence, _) = after(&STARTED);
        sequence.next(Event::Asked(Health::NotYet));
        assert_eq!(sequence.next(Event::Waited(LIMITS.health)), Action::GiveUp(TERM));
        assert_eq!(sequence.wait(), Action::Wait(Some(LIMITS.grace)));
        assert_eq!(sequence.next(Event::Waited(LIMITS.grace)), Action::Forward(KILL));
        // Not the daemon's own status: its end was ours.
        assert_eq!(sequence.next(Event::DaemonEnded(0)), Action::Exit(1));
    }

    #[test]
    fn a_list_that_cannot_be_put_ends_the_daemon() {
        let (mut sequence, _) = after(&[&STARTED[..], &[Event::Asked(Health::Serving)]].concat());
        assert_eq!(sequence.next(Event::Listed(Done::Failed)), Action::GiveUp(TERM));
        assert_eq!(sequence.next(Event::DaemonEnded(143)), Action::Exit(1));
    }

    #[test]
    fn signals_reach_the_daemon_whose_status_is_ours() {
        let (mut sequence, _) = after(&SERVING);
        assert_eq!(sequence.next(Event::Received(USER_1)), Action::Forward(USER_1));
        assert_eq!(sequence.wait(), Action::Wait(None));
        assert_eq!(sequence.next(Event::Received(TERM)), Action::Forward(TERM));
        assert_eq!(sequence.wait(), Action::Wait(Some(LIMITS.grace)));
        assert_eq!(sequence.next(Event::Received(HANGUP)), Action::Forward(HANGUP));
        assert_eq!(sequence.next(Event::Waited(LIMITS.grace)), Action::Forward(KILL));
        assert_eq!(sequence.next(Event::DaemonEnded(137)), Action::Exit(137));
    }

    #[test]
    fn after_a_request_to_end_no_list_is_put() {
        let (mut sequence, _) = after(&STARTED);
        assert_eq!(sequence.next(Event::Received(TERM)), Action::Forward(TERM));
        assert_eq!(
            sequence.next(Event::Asked(Health::Serving)),
            Action::Wait(Some(LIMITS.grace))
        );
        assert_eq!(sequence.next(Event::DaemonEnded(0)), Action::Exit(0));
    }

    #[test]
    fn a_request_to_end_before_the_daemon_starts_starts_none() {
        let (mut sequence, _) = Sequence::begin(LIMITS);
        assert_eq!(sequence.next(Event::Received(TERM)), Action::Wait(None));
        assert_eq!(sequence.next(Event::Installed(Done::Well)), Action::Exit(143));
        let (mut sequence, _) = after(&[Event::Installed(Done::Well), Event::Received(TERM)]);
        assert_eq!(sequence.next(Event::Started(Done::Well)), Action::Forward(TERM));
    }
}
