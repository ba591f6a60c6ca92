//! The coordinator's face on the network. Handlers decode, call, encode; they decide nothing.
//!
//! [`connections`] turns a listening socket into connections whose holder is known by certificate; [`serve`] puts three
//! services behind them: one for machines that are not yet members, one for nodes, one for operators. The [`Desk`] knows who
//! is a member.

mod accept;
mod auth;
mod desk;
mod enrollment;
mod node;
mod operator;
mod serve;
mod transfer;

#[cfg(test)]
mod tests;

pub use accept::{Connection, Doors, Peer, connections};
pub use desk::{Desk, application};
pub use serve::serve;
