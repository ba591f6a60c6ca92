//! Who belongs to a fleet.
//!
//! An operator makes a one-time [`Token`] and hands it to one node, out of band. The node proves that it holds it
//! ([`Token::prove`]) over everything that it wants bound together (its [`Claim`]); the coordinator passes the claim and the
//! proof on, but never sees the secret, so it cannot enrol a node of its own making. The enrolment authority, whose key the
//! operator keeps, checks the proof and signs a [`Membership`], which every other party verifies.

mod key;
mod statement;
mod token;
mod vouch;

pub use self::{
    key::{Identity, IdentityKey, IdentitySignature},
    statement::{Membership, SignedMembership},
    token::{Claim, Proof, Token},
    vouch::{Vouching, participant},
};

#[cfg(test)]
mod tests;
