//! # One round, from both ends
//!
//! In a round some nodes start from the same global parameters, train on what only they have, and send back how far the
//! parameters moved. The coordinator adds these updates up and moves the global parameters by their mean (FedAvg, McMahan et
//! al. 2017). A round may take several **attempts**; an attempt has its own random **session**, and everything that a node
//! sends is bound to it.
//!
//! ```mermaid
//! sequenceDiagram
//!     participant N as node (`NodeRound`)
//!     participant C as coordinator (`Run`)
//!     participant S as its store
//!     Note over C: Selecting
//!     C->>S: AttemptOpened(terms), and a task for each member in the outbox
//!     C->>N: Task(terms)
//!     Note over C: Collecting
//!     N->>C: fetch parameters and model by digest, if not here yet
//!     Note over N: train, once for all attempts
//!     N->>C: the update, clipped, weighted, in fixed point
//!     C->>S: UpdateAccepted(node, digest)
//!     Note over C: add to the sum, drop the bytes
//!     C->>N: accepted
//!     C->>S: CollectionClosed(survivors)
//!     Note over C: Committing: decode the sum, store the new parameters
//!     C->>S: RoundCommitted(parameters, totals)
//!     C->>N: Withdraw: forget the update
//! ```
//!
//! An attempt that comes to nothing ends with `Withdraw(keep)` instead: the nodes park what they trained for the next one.
//!
//! The coordinator's side is decided in [`Run`](crate::run::Run): `decide` in `run/mod.rs` hands each input to the file of its phase here.
//!
//! ## The phases, one file each
//!
//! - **Selecting**: the shell says who is connected and has data. As soon as ⌈size·(1 + over-selection)⌉ nodes
//!   are there, a seeded draw chooses the cohort and fixes the [`Terms`]; when `deadlines.select` has passed, `cohort.minimum` are enough.
//!   After a restart of the coordinator those who had a part in the lost attempt are waited for first.
//! - **Collecting**: members train and send; each update is received whole, checked, counted once and added. It ends when `size` updates are
//!   in, when everyone has answered, or at `deadlines.round`; who has not answered then is dropped.
//! - **Committing**: no more updates. The shell decodes the sum, adds its mean to the parameters and stores them; the round is over when that
//!   is an event.
//!
//! On the node, [`NodeRound`] goes from Idle over Training, Ready and Submitted back to Idle. What it computes is named by [`Terms::work`],
//! which leaves the session out: a second attempt at the same work needs no second training.
//!
//! ## What is persisted when
//!
//! Each step is an [`Event`](crate::run::Event) in the store before its answer leaves: no node is told "accepted" before the acceptance would
//! survive a crash. Events hold names, digests and lengths. **Vectors are never stored**: the sum and the updates that wait for it live in
//! memory and go with the attempt; only the new global parameters become an object, and only then is the round committed. On a node
//! the trained update lives in memory, too, until the round is decided.
//!
//! ## What can go wrong
//!
//! | what | what happens |
//! |---|---|
//! | a node declines (bad data, divergence, policy) | dropped with its reason; asked again in this round only if there are no others |
//! | a node is late | dropped at the deadline; with over-selection, when enough others were faster |
//! | fewer than the minimum can still answer | [`AbortReason::TooFewUpdates`] at once, a new attempt, at most `deadlines.attempts` of them |
//! | too few nodes to begin with | [`AbortReason::TooFewNodes`] when selection ends; counts as an attempt |
//! | the same update again | accepted again, added once: the answer was lost |
//! | another update from the same node | refused, `PeerMisbehaved` |
//! | an update from outside the cohort, or of another length | refused, `PeerMisbehaved` |
//! | an update of another session | refused, `Expired`: the node asks for the current task |
//! | non-finite values | never leave the node: fixed point has none; the node declines |
//! | an update that is beyond the clip norm, or counts wrongly | refused before it is added, `PeerMisbehaved` |
//! | the sum does not decode | [`AbortReason::BadSum`], a new attempt |
//! | the coordinator dies | vectors are lost, so [`AbortReason::CoordinatorRestarted`], which does not count; the same cohort gets a new session and submits what it has. Before the first update nothing is lost, and the attempt goes on. The time to come together begins anew |
//! | a node dies | it trains again, to the same bits: the seed comes from the run's seed, the round and its name |
//!
//! So with `minimum = size` and deadlines that outlast the restarts, the final model is bit-equal however often anything died.
//!
//! ## Who sees what, and what comes next
//!
//! In this version the coordinator sees each update in clear, and there is no noise; [`Spec::privacy_line`](crate::spec::Spec::privacy_line)
//! says so wherever a run is printed. Secure aggregation and noise are additions to what is here:
//!
//! - **keys and shares** are two phases between Selecting and Collecting: members sign their keys together with [`Terms::hash`], then pass
//!   each other encrypted shares. Both are files beside `collecting.rs`, and the cohort shrinks in them as it does there;
//! - **masks** are added on the node to the same lanes of Z_2^b that the encoding fills; the sum, [`sapwood_privacy::Accumulator`], and the check
//!   that an update has the right length stay as they are;
//! - **consistency and unmasking** are two phases between Collecting and Committing, over the survivors that `CollectionClosed` fixes;
//! - **noise** is drawn on the node as integers after rounding, inside [`sapwood_privacy::Encoding`]; the ledger is charged before the sum is
//!   revealed, which is before Committing.
//!
//! A crash then loses keys as it loses vectors now: a new attempt, a new session.

pub(crate) mod attempts;
mod codec;
pub(crate) mod collecting;
pub(crate) mod committing;
pub(crate) mod exchanging;
mod node;
mod protection;
mod reasons;
mod select;
pub(crate) mod selecting;
mod session;
mod terms;
mod totals;

pub use codec::Codec;
pub use exchanging::Stage;
pub use node::{NodeEffect, NodeEvent, NodeInput, NodeRound, Receipt};
pub use protection::{NoiseTerms, Report, SecureTerms, plan, request, spare_rounds, unit};
pub use reasons::{AbortReason, Decline, DropReason};
pub use session::SecureSession;
pub use terms::{EncodingTerms, OptimizerTerms, Task, Terms, TrainTerms, Withdrawal};
pub use totals::Totals;
