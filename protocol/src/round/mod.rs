//! # One round, from both ends
//!
//! In a round some nodes start from the same global parameters, train on what only they have, and contribute how far the parameters
//! moved. The coordinator learns the sum of these updates and moves the global parameters by their mean (FedAvg, McMahan et al. 2017). By
//! default it learns nothing else: each node adds masks that cancel in the sum ([`sapwood_privacy::secagg`]), and under a privacy budget
//! it adds its share of the noise before ([`sapwood_privacy::dp`]). A round may take several **attempts**; an attempt has its own random
//! **session**. Keys, masks, noise and charge belong to one session, and everything that a node sends is bound to it.
//!
//! ```mermaid
//! sequenceDiagram
//!     participant N as node (`NodeRound`, `Client`)
//!     participant C as coordinator (`Run`, `SecureSession`)
//!     participant S as its store
//!     Note over C: Selecting
//!     C->>S: AttemptOpened(terms), and a task for each member in the outbox
//!     C->>N: Task(terms)
//!     Note over C: Exchanging, keys
//!     Note over N: look at policy and ledger, fetch what is not here yet, train once for all attempts, draw the noise
//!     N->>C: public keys of this session, signed with the hash of the terms
//!     C->>S: StageClosed(keys, members)
//!     C->>N: the neighbours' keys
//!     Note over C: Exchanging, shares
//!     N->>C: shares of its secrets, sealed for each neighbour
//!     C->>S: StageClosed(shares, members)
//!     C->>N: what its neighbours sealed for it
//!     Note over C: Collecting
//!     Note over N: charge its own ledger at worst case, add the masks
//!     N->>C: the masked input
//!     C->>S: UpdateAccepted(node, digest)
//!     Note over C: add to the sum, drop the bytes
//!     C->>N: accepted
//!     C->>S: StageClosed(inputs, survivors)
//!     C->>N: whose inputs are in the sum
//!     Note over C: Exchanging, consistency
//!     N->>C: a signature over these survivors, the only one
//!     C->>S: the ledger's stream: Charged(session)
//!     C->>S: Charged(session), StageClosed(consistency, members)
//!     C->>N: the others' signatures
//!     Note over C: Exchanging, unmasking
//!     N->>C: one share of each neighbour, of its own mask or of its mask key, never both
//!     C->>S: StageClosed(unmasking)
//!     Note over C: Committing: take the masks off, decode, store the new parameters
//!     C->>S: RoundCommitted(parameters, totals)
//!     C->>N: Withdraw: forget the update
//! ```
//!
//! With `secure_aggregation.mode = "off"` the stages of Exchanging are left out: Collecting follows Selecting, the node sends its update
//! as soon as it is trained, and `CollectionClosed(survivors)` leads to Committing. An attempt that comes to nothing ends with
//! `Withdraw(keep)` instead: the nodes park what they trained for the next one.
//!
//! The coordinator's side is decided in [`Run`](crate::run::Run): `decide` in `run/mod.rs` hands each input to the file of its phase
//! here. Who has sent which message of the secure sum is known to the [`SecureSession`] in memory; it says when a stage is complete.
//! Nodes hand over a message and wait for the next one in the same call.
//!
//! ## The phases, one file each
//!
//! - **Selecting**: the shell says who is connected and has data. As soon as ⌈size·(1 + over-selection)⌉ nodes are there, a seeded draw
//!   chooses the cohort and fixes the [`Terms`]; when `deadlines.select` has passed, `cohort.minimum` are enough. After a restart of the
//!   coordinator those who had a part in the lost attempt are waited for first.
//! - **Exchanging: keys, shares** ([`Stage::Keys`], [`Stage::Shares`]): a node that has trained advertises its keys. The stage ends when
//!   `size` nodes have, when everyone has answered, or at `deadlines.round`. Those who have are neighbours in a graph, and pass each
//!   other encrypted shares of their secrets; this stage and each one behind it ends when everyone has answered, or after
//!   `deadlines.exchange`.
//! - **Collecting** ([`Stage::Inputs`]): who has shared sends a masked input; each is received whole, checked, counted once and added.
//!   Who has not answered at the deadline is dropped, and its masks are taken off the sum with its neighbours' shares. In clear the
//!   members train in this phase, and it ends when `size` updates are in, when everyone has answered, or at `deadlines.round`.
//! - **Exchanging: consistency, unmasking** ([`Stage::Consistency`], [`Stage::Unmasking`]): each survivor signs who the survivors are, so
//!   that no two nodes answer for different sets. Under a budget the [ledger](crate::ledger::Ledger) is charged then. When that is
//!   durable, survivors are asked for shares, and enough of them open the sum.
//! - **Committing**: no more messages. The shell takes the masks off, decodes the sum, adds its mean to the parameters and stores them;
//!   the round is over when that is an event. Where the coordinator adds the noise to updates in clear, the ledger is charged before.
//!
//! On the node, [`NodeRound`] goes from Idle over Training, Ready and Submitted back to Idle; the whole secure sum is its Ready. What it
//! computes is named by [`Terms::work`], which leaves the session out: a second attempt at the same work needs no second training. Noise
//! is not part of it: it is drawn anew for each session. Under the units example and entity, to train is one step: the gradient of each
//! unit at the global parameters, clipped by itself, and their sum.
//!
//! ## What is persisted when
//!
//! Each step is an [`Event`](crate::run::Event) in the store before its answer leaves: no node is told "accepted", and none is given the
//! message of the next stage, before that would survive a crash. Events hold names, digests, lengths and costs. **Vectors, keys, shares
//! and seeds are never stored**: the sum, the updates that wait for it and the session live in memory and go with the attempt; only the
//! new global parameters become an object, and only then is the round committed. On a node the trained update and its part in the session
//! live in memory, too; its own ledger alone is on its disk, charged before the input leaves.
//!
//! ## What can go wrong
//!
//! | what | what happens |
//! |---|---|
//! | a node declines (bad data, divergence, policy, its own ledger) | dropped with its reason; asked again in this round only if there are no others |
//! | a node is late with its keys | dropped at the deadline; with over-selection, when enough others were faster. It holds no shares, so it costs nobody anything |
//! | a node leaves before it has dealt its shares | dropped at the end of the stage; nobody has masks with it |
//! | a node leaves between shares and input | dropped; its neighbours' shares of its mask key take its masks off the sum |
//! | a node leaves when its input is in | the input stays; its neighbours' shares of its own mask take that off. The check of consistency waits for it until its deadline |
//! | too few in a stage to hide each other or to open the sum | [`AbortReason::SecureSum`] when the stage ends, nothing revealed; a new attempt, at most `deadlines.attempts` of them |
//! | fewer than the minimum can still send an input | [`AbortReason::TooFewUpdates`] at once, likewise |
//! | too few nodes to begin with | [`AbortReason::TooFewNodes`] when selection ends; counts as an attempt |
//! | the same message or update again | answered again while its stage lasts, counted once: the answer was lost |
//! | another message of one stage from the same node, as after its restart | refused, `Expired`: it cannot keep what it promised before. The stages behind do not wait for it |
//! | another update from the same node | refused, `PeerMisbehaved` |
//! | a message with a bad signature, another membership or other terms | refused, `PeerMisbehaved`, and not counted |
//! | the coordinator says what does not fit: keys without the authority's word, another plan, too few survivors, missing signatures | the node wipes its secrets, leaves, and says [`Decline::SecureSum`] |
//! | an update from outside the cohort, or of another length | refused, `PeerMisbehaved` |
//! | anything of another session | refused, `Expired`: the node asks for the current task |
//! | non-finite values | never leave the node: fixed point has none; the node declines |
//! | in clear and without noise, an update that is beyond the clip norm, or counts wrongly | refused before it is added, `PeerMisbehaved`. Behind masks or noise nobody can tell |
//! | the coordinator's ledger refuses the charge | nothing is opened; the run ends, [`Failure::Budget`](crate::run::Failure::Budget) |
//! | an attempt fails when it is charged | the charge stays; `privacy.spare_rounds` were reserved for that |
//! | the sum does not open or decode | [`AbortReason::BadSum`], a new attempt |
//! | the coordinator dies, in any stage | keys and vectors are lost, so [`AbortReason::CoordinatorRestarted`], which does not count; the same cohort gets a new session, with new keys, noise and charge, and submits what it has trained. In clear, before the first update, nothing is lost, and the attempt goes on. The time to come together begins anew |
//! | a node dies | its secrets are gone, and with them its part in the session; one that it was charged for it does not enter again. It trains again, to the same bits: the seed comes from the run's seed, the round and its name |
//!
//! So without noise, with `minimum = size` and deadlines that outlast the restarts, the final model is bit-equal however often anything
//! died. `protocol/tests/round/main.rs` tries that in clear, `protocol/tests/secure/main.rs` with masks, noise and nodes that leave in every stage.
//!
//! ## Who learns what
//!
//! - **The coordinator** learns the sum of at least `minimum` updates, who took part, who left when, and why a node declined. The sum is
//!   exact without a budget. Under one it is noised by the nodes, and so are loss and accuracy, which travel inside it; numbers of
//!   examples stay on the nodes ([`Totals`]). With `mode = "off"` it sees each update, with `mechanism = "central"` each exact sum.
//! - **Other nodes** learn the identities and keys of their neighbours, who is in the sum, and the new global parameters.
//! - **Readers of a release** learn its parameters, and what was spent for them.
//!
//! [`Spec::privacy_line`](crate::spec::Spec::privacy_line) says which of these holds wherever a run is printed. A node checks the terms
//! against its operator's policy and does not ask the coordinator. Assumptions and limits are in `docs/THREAT_MODEL.md`.

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
pub(crate) use protection::adaptive;
pub(crate) use protection::check_key;
pub use protection::{NoiseTerms, Report, SecureTerms, plan, request, spare_rounds, unit};
pub use reasons::{AbortReason, Decline, DropReason};
pub use session::{Complaint, SecureSession};
pub use terms::{EncodingTerms, OptimizerTerms, Task, Terms, TrainTerms, Withdrawal};
pub use totals::Totals;
