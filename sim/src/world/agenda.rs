//! The virtual clock, and what is due by it: a queue of events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proto::ids::Timestamp;

/// What names one entry of the agenda; of a device only its newest counts. None has the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Which device is to do something, and by which of its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) device: usize,
    pub(super) ticket: Ticket,
}

/// The virtual clock, and whose turn is when. Of what is due at the same time, that comes first which was entered first.
#[derive(Debug)]
pub(super) struct Agenda {
    now: Timestamp,
    tickets: u64,
    later: BinaryHeap<Reverse<(Timestamp, Ticket, usize)>>,
    /// What is due now.
    due: Vec<Turn>,
}

impl Agenda {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { now, tickets: 0, later: BinaryHeap::new(), due: Vec::new() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// It is the device's turn then, or now where that is past.
    pub(super) fn enter(&mut self, device: usize, at: Timestamp) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if at <= self.now {
            self.due.push(Turn { device, ticket });
        } else {
            self.later.push(Reverse((at, ticket, device)));
        }
        ticket
    }

    /// Those whose turn it is now, in the order in which they were entered.
    pub(super) fn take_due(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.due)
    }

    /// When the next turn is that is not due yet.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.later.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Moves the clock, never back.
    pub(super) fn advance(&mut self, to: Timestamp) {
        self.now = self.now.max(to);
        while let Some(Reverse((at, ticket, device))) = self.later.peek().copied() {
            if at > self.now {
                break;
            }
            self.later.pop();
            self.due.push(Turn { device, ticket });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(agenda: &mut Agenda) -> Vec<usize> {
        agenda.take_due().into_iter().map(|turn| turn.device).collect()
    }

    #[test]
    fn what_is_due_at_the_same_time_comes_in_the_order_in_which_it_was_entered() {
        let mut agenda = Agenda::new(Timestamp(100));
        for (device, at) in [(3, 300), (1, 200), (9, 200), (0, 200), (7, 50), (2, 301)] {
            agenda.enter(device, Timestamp(at));
        }
        assert_eq!(devices(&mut agenda), [7]);
        assert_eq!(agenda.next(), Some(Timestamp(200)));
        agenda.advance(Timestamp(200));
        assert_eq!(devices(&mut agenda), [1, 9, 0]);
        agenda.advance(Timestamp(500));
        assert_eq!((devices(&mut agenda), agenda.next()), (vec![3, 2], None));
    }

    #[test]
    fn the_clock_never_goes_back() {
        let mut agenda = Agenda::new(Timestamp(100));
        agenda.advance(Timestamp(50));
        assert_eq!(agenda.now(), Timestamp(100));
    }
}
