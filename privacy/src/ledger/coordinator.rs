//! The coordinator's ledger of one population and one unit.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Budget, Rho};

/// What may be asked of the ledger. `R` names runs, `S` sessions: one attempt at one round, never reused.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<R, S> {
    /// Before a run starts, or before it may do more than it reserved: `total` is all it may ever cost.
    Reserve {
        /// Which run.
        run: R,
        /// Rounds, attempts that may fail after being charged, each at worst case.
        total: Rho,
    },
    /// Before unmask requests leave: what this session's sum costs with the survivors it has.
    Charge {
        /// Which run.
        run: R,
        /// Which attempt.
        session: S,
        /// ρ against the coordinator.
        rho: Rho,
    },
    /// A run has ended, in whatever way: it will not charge again.
    Settle {
        /// Which run.
        run: R,
    },
    /// The store was restored from a backup, or is otherwise not known to be the latest.
    Restore {
        /// What is known to have been spent, from nodes' ledgers or published models; zero if nothing is.
        at_least: Rho,
    },
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<R, S> {
    /// The run may cost `total`.
    Reserved {
        /// Which run.
        run: R,
        /// From now on, not in addition.
        total: Rho,
    },
    /// The session was paid for.
    Charged {
        /// Which run.
        run: R,
        /// Which attempt.
        session: S,
        /// How much.
        rho: Rho,
    },
    /// The rest of the reservation is free.
    Settled {
        /// Which run.
        run: R,
    },
    /// Open reservations count as spent, and the total is at least this.
    Restored {
        /// In all.
        at_least: Rho,
    },
}

/// Why the ledger says no, and what it would say yes to.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refusal {
    /// The budget does not allow it.
    #[error(
        "the budget is spent: rho {asked} is asked for and {left} of {budget} is left; plan the run for an epsilon of at most {fits:.4} at the budget's delta, or for {:.0} % of its rounds, or raise the budget",
        100.0 * .left.get() / .asked.get()
    )]
    Exceeded {
        /// Beyond what is reserved already.
        asked: Rho,
        /// Neither spent nor reserved.
        left: Rho,
        /// In all.
        budget: Rho,
        /// ε of a run that would use up what is left.
        fits: f64,
    },
    /// Nothing to reserve or to charge.
    #[error("an amount of zero: a run without a budget does not belong into the ledger")]
    Nothing,
    /// The run never reserved anything.
    #[error("the run has reserved nothing: reserve its worst case before it starts")]
    NotReserved,
    /// The run was settled, or closed by a restore.
    #[error("the run's account is closed: start a new run")]
    Closed,
    /// The reservation does not cover it.
    #[error("the session costs rho {asked}, and {left} of the run's reservation is left: reserve more or end the run")]
    ReservationSpent {
        /// By the session.
        asked: Rho,
        /// Of the reservation.
        left: Rho,
    },
    /// The session was charged for something else.
    #[error("the session was charged rho {charged} and cannot be charged {asked}, or belongs to another run: draw a new session")]
    SessionDiffers {
        /// Then.
        charged: Rho,
        /// Now.
        asked: Rho,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Account {
    reserved: Rho,
    charged: Rho,
    open: bool,
}

impl Account {
    /// What the run counts for.
    fn held(&self) -> Rho {
        if self.open { self.reserved.max(self.charged) } else { self.charged }
    }
}

/// The state: replayed from events, never stored by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct CoordinatorLedger<R, S> {
    budget: Budget,
    runs: BTreeMap<R, Account>,
    sessions: BTreeMap<S, (R, Rho)>,
    /// Spent somewhere that this ledger has no record of.
    unrecorded: Rho,
}

impl<R: Ord + Clone, S: Ord + Clone> CoordinatorLedger<R, S> {
    /// An untouched budget.
    pub fn new(budget: Budget) -> Self {
        Self { budget, runs: BTreeMap::new(), sessions: BTreeMap::new(), unrecorded: Rho::ZERO }
    }

    /// From a store.
    pub fn replay<'a>(budget: Budget, events: impl IntoIterator<Item = &'a Event<R, S>>) -> Self
    where
        R: 'a,
        S: 'a,
    {
        let mut ledger = Self::new(budget);
        for event in events {
            ledger.apply(event);
        }
        ledger
    }

    /// Another budget from now on; what was spent or reserved stays.
    pub fn rebudget(&mut self, budget: Budget) {
        self.budget = budget;
    }
    /// The budget.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
    /// Charged by all sessions, and what is held to be lost.
    pub fn spent(&self) -> Rho {
        self.runs.values().fold(self.unrecorded, |sum, account| sum.plus(account.charged))
    }
    /// Charged, or still reserved.
    pub fn held(&self) -> Rho {
        self.runs.values().fold(self.unrecorded, |sum, account| sum.plus(account.held()))
    }
    /// Neither.
    pub fn left(&self) -> Rho {
        self.budget.rho().less(self.held())
    }
    /// Runs that may still be charged.
    pub fn open_runs(&self) -> impl Iterator<Item = &R> {
        self.runs.iter().filter(|(_, account)| account.open).map(|(run, _)| run)
    }
    /// What a run was charged, and what it may be charged in all; none if it never reserved.
    pub fn run(&self, run: &R) -> Option<(Rho, Rho)> {
        self.runs.get(run).map(|account| (account.charged, account.held()))
    }

    /// What follows from `command`; nothing if it was done before.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing has happened then.
    pub fn decide(&self, command: Command<R, S>) -> Result<Option<Event<R, S>>, Refusal> {
        match command {
            Command::Reserve { run, total } => self.reserve(run, total),
            Command::Charge { run, session, rho } => self.charge(run, session, rho),
            Command::Settle { run } => match self.runs.get(&run) {
                None => Err(Refusal::NotReserved),
                Some(account) => Ok(account.open.then_some(Event::Settled { run })),
            },
            Command::Restore { at_least } => Ok(Some(Event::Restored { at_least })),
        }
    }

    fn reserve(&self, run: R, total: Rho) -> Result<Option<Event<R, S>>, Refusal> {
        if total == Rho::ZERO {
            return Err(Refusal::Nothing);
        }
        let reserved = match self.runs.get(&run) {
            Some(account) if !account.open => return Err(Refusal::Closed),
            Some(account) if total <= account.reserved => return Ok(None),
            Some(account) => account.held(),
            None => Rho::ZERO,
        };
        let (asked, left) = (total.less(reserved), self.left());
        if asked > left {
            // Where the conversion fails there is nothing that fits.
            let fits = self.budget.epsilon_of(left).unwrap_or_default();
            return Err(Refusal::Exceeded { asked, left, budget: self.budget.rho(), fits });
        }
        Ok(Some(Event::Reserved { run, total }))
    }

    fn charge(&self, run: R, session: S, rho: Rho) -> Result<Option<Event<R, S>>, Refusal> {
        if rho == Rho::ZERO {
            return Err(Refusal::Nothing);
        }
        if let Some((paid_by, charged)) = self.sessions.get(&session) {
            // Paid for, whatever has become of the run since. Less is covered by more.
            let covered = *paid_by == run && rho <= *charged;
            return if covered { Ok(None) } else { Err(Refusal::SessionDiffers { charged: *charged, asked: rho }) };
        }
        let account = self.runs.get(&run).ok_or(Refusal::NotReserved)?;
        if !account.open {
            return Err(Refusal::Closed);
        }
        let left = account.reserved.less(account.charged);
        if rho > left {
            return Err(Refusal::ReservationSpent { asked: rho, left });
        }
        Ok(Some(Event::Charged { run, session, rho }))
    }

    /// The state after `event`. Whatever the events are, what was charged stays charged.
    pub fn apply(&mut self, event: &Event<R, S>) {
        let empty = Account { reserved: Rho::ZERO, charged: Rho::ZERO, open: true };
        match event {
            Event::Reserved { run, total } => {
                let account = self.runs.entry(run.clone()).or_insert(empty);
                account.reserved = account.reserved.max(*total);
            }
            Event::Charged { run, session, rho } => {
                // The same session twice in a store is one charge, the larger one.
                let (_, paid) = self.sessions.entry(session.clone()).or_insert_with(|| (run.clone(), Rho::ZERO));
                let more = rho.less(*paid);
                *paid = paid.plus(more);
                let account = self.runs.entry(run.clone()).or_insert(empty);
                account.charged = account.charged.plus(more);
            }
            Event::Settled { run } => {
                if let Some(account) = self.runs.get_mut(run) {
                    account.open = false;
                }
            }
            Event::Restored { at_least } => {
                for account in self.runs.values_mut() {
                    account.charged = account.held();
                    account.open = false;
                }
                self.unrecorded = self.unrecorded.plus(at_least.less(self.spent()));
            }
        }
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
