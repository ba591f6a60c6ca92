//! The survivors are signed. Waits for proof that enough neighbours were told of the same, and gives its shares.

use crate::secagg::{
    Fault,
    message::{Consistency, Unmask},
    shamir::Share,
    terms::IdentityKey,
};

/// Holds one share of each neighbour: of its own-mask seed if it survived, of its mask key if not.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Agreed {
    /// What every survivor signs.
    pub(super) signed: Vec<u8>,
    /// t.
    pub(super) threshold: u32,
    /// The neighbours in U2.
    pub(super) peers: Vec<Peer>,
}

#[cfg_attr(test, derive(Clone))]
pub(super) struct Peer {
    pub(super) rank: u32,
    pub(super) identity: IdentityKey,
    pub(super) survives: bool,
    pub(super) share: Option<Share>,
}

impl Agreed {
    pub(super) fn unmask(&self, message: &Consistency) -> Result<Unmask, Fault> {
        let mut last = None;
        for (rank, signature) in &message.signatures {
            let signer = self.peers.iter().find(|peer| peer.rank == *rank && peer.survives);
            let (Some(signer), true) = (signer, last < Some(*rank)) else { return Err(Fault::Signer { rank: *rank }) };
            if !signer.identity.verifies(&self.signed, signature) {
                return Err(Fault::OtherSurvivors { rank: *rank });
            }
            last = Some(*rank);
        }
        let have = message.signatures.len() as u32;
        if have < self.threshold {
            return Err(Fault::Inconsistent { have, need: self.threshold });
        }
        Ok(Unmask { shares: self.peers.iter().map(|peer| peer.share.clone()).collect() })
    }
}
