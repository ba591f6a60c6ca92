//! Ledgers: who may spend how much privacy, and what has been spent. Rules only; whoever holds the store makes them durable.
//!
//! Both are decide/apply: `decide` looks at the state and a command and answers with events or a typed refusal, changing nothing;
//! `apply` takes an event that is **already durable** and cannot fail. Replaying the events of a store gives the same state.
//!
//! | | coordinator's ([`CoordinatorLedger`]) | node's ([`NodeLedger`]) |
//! |---|---|---|
//! | one for each | population and unit | node |
//! | before a run | reserves the run's worst case, or the run does not start | |
//! | before data is revealed | charges the session, before unmask requests leave, at survivors less colluders | charges the session at worst case, before the masked input leaves |
//! | afterwards | settles: what was reserved and not charged is free again | |
//! | under | a budget (ε, δ) | its operator's [`Policy`] |
//!
//! **Never under-count.** A charge is durable before what it pays for can happen, so a crash between the two leaves a charge
//! without a release, never the reverse. The same session charged again is the same charge. Amounts are integers ([`Rho`]): costs
//! round up, budgets round down, sums are exact. After a restored backup [`Command::Restore`] closes every open reservation at its
//! full amount and lifts the total to what is known from elsewhere.
//!
//! **Races.** An open reservation counts in full, so two runs can never both be given the last of a budget, provided that decisions are
//! made on current states: a store commits events only if the ledger's `version` is still the one they were decided at.
//!
//! OpenDP's privacy filter enforces the same rule, but lives in memory; a test shows that both agree on random sequences.

mod coordinator;
mod node;
mod rho;

pub use coordinator::{Command, CoordinatorLedger, Event, Refusal};
pub use node::{NodeEvent, NodeLedger, NodeRefusal, Offer, Policy, Protection};
pub use rho::{Budget, Rho};
