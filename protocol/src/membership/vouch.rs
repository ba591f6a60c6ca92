//! Memberships in the secure sum: an identity signs a node's keys, and the authority's word tells its neighbours that it may take part.

use sapwood_privacy::secagg::{self, Participant, Signer};

use super::{Identity, IdentityKey, SignedMembership};
use crate::{ids::PopulationId, round::Terms, time::Timestamp};

impl Signer for Identity {
    fn identity(&self) -> secagg::IdentityKey {
        secagg::IdentityKey(*self.key().as_bytes())
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        *Self::sign(self, message).as_bytes()
    }
}

/// What a node checks of its neighbours in a secure sum.
#[derive(Clone, Debug)]
pub struct Vouching {
    /// The enrolment authority that the node pins.
    pub authority: IdentityKey,
    /// Its population.
    pub population: PopulationId,
    /// When.
    pub now: Timestamp,
}

impl Vouching {
    /// Whether `context` is the authority's word that `identity` is a node of this population and of the cohort.
    pub fn vouches(&self, terms: &Terms, identity: &secagg::IdentityKey, context: &[u8]) -> bool {
        let Ok(signed) = serde_json::from_slice::<SignedMembership>(context) else { return false };
        let Ok(statement) = signed.verify(&self.authority, &self.population, self.now) else { return false };
        *statement.identity.as_bytes() == identity.0 && terms.has(&statement.node)
    }
}

/// How the coordinator invites a node: by the membership that the node showed it.
///
/// None if it cannot be read; the coordinator has checked its signature when the node connected.
pub fn participant(membership: &[u8]) -> Option<Participant> {
    let signed: SignedMembership = serde_json::from_slice(membership).ok()?;
    Some(Participant { identity: secagg::IdentityKey(*signed.statement.identity.as_bytes()), context: membership.to_vec() })
}
