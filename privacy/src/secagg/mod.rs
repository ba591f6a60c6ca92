//! Secure aggregation: the server learns the sum of the nodes' vectors and no single one.
//!
//! SecAgg+ of Bell, Bonawitz, Gascón, Lepoint and Raykova (CCS 2020, ePrint 2020/704), which makes the protocol of Bonawitz et
//! al. (CCS 2017, ePrint 2017/281) cheap by letting a node deal with k neighbours instead of everybody. Each pair of neighbours
//! adds the same random vector, one with a plus, the other with a minus: in the sum they cancel. Each node adds a second mask of
//! its own, so that a vector that comes late is not laid bare when the server has rebuilt the pair masks of one who seemed
//! gone. Both kinds of secrets lie in t-of-k shares with the neighbours, who give out **one of the two** for each node.
//!
//! ```text
//!           node i                                        server                 who is left
//!  R0  keys c_pk, s_pk, nonce, signed   ───────────▶  fixes the roll                  U1
//!  R1  checks roll, plan, neighbours    ◀───────────  roll, neighbours' keys
//!      shares of s_sk and b_i, sealed   ───────────▶  H(b_i), envelopes               U2
//!  R2  opens the envelopes              ◀───────────  neighbours' envelopes
//!      x_i + PRG(b_i) ± Σ PRG(s_ij)     ───────────▶  adds it to the one sum          U3
//!  R3  forgets half of each share pair  ◀───────────  who is in the sum
//!      signs that set, once             ───────────▶  collects signatures             U4
//!  R4  checks t neighbours' signatures  ◀───────────  signatures
//!      share of b_j (j in the sum)
//!      or of s_sk_j (j has left)        ───────────▶  takes the masks off             U5
//! ```
//!
//! # Threat model
//!
//! - γn nodes (one at least) may tell the server all they know, and δn nodes may leave at any time. Then each honest vector is
//!   hidden in the sum of the honest vectors; the probability of a graph that fails is 2^-40 ([`plan`]).
//! - [`plan::Profile::Curious`]: the server follows the protocol and looks. [`plan::Profile::SemiMalicious`]: once the keys are
//!   collected it may say anything to anybody. R3 is run in both; only the larger t of the second makes it a proof: no t
//!   neighbours can be brought to open one secret of a node while another t open the other. There it may also choose who seems
//!   to leave: a survivor set that could be cut along its colluders is refused ([`graph`]).
//! - Enrolment is the caller's: neighbours see each other's identity and context, and the caller says whether that identity is
//!   enrolled. A server that enrols nodes at will breaks γ. One identity cannot stand in a roll twice.
//! - A server that already cheats while keys are collected can try subsets of nodes for a graph that it likes ([`graph`]); below
//!   30 nodes the graph is complete and there is nothing to try.
//! - Not promised: that vectors are well formed (poisoning), that a sum says little about one vector (that is what noise is for),
//!   secrecy of who took part, and that a server or a cheating node cannot make a session fail.
//! - Secrets are wiped when they have served. The expanded cipher keys of masks live in `ring`, which frees without wiping.
//!
//! Client and server are state machines without I/O, clocks or randomness of their own: [`Client`], [`Server`].

mod channel;
pub mod client;
mod codec;
mod fault;
mod field;
pub mod graph;
mod mask;
pub mod message;
pub mod plan;
pub mod server;
mod set;
pub mod shamir;
mod terms;

pub use client::{Client, Reply};
pub use fault::Fault;
pub use graph::Graph;
pub use mask::Suite;
pub use plan::{Infeasible, Plan, Profile, Rate};
pub use server::{Participant, Receipt, Server, Sum};
pub use set::RankSet;
pub use terms::{IdentityKey, Policy, Random, Session, Signer, Terms};

#[cfg(test)]
mod tests;
