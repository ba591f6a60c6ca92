//! R3: tells everybody whose vectors are in the sum, and collects their signatures of it.

use super::{Roster, Unmasking, masking::Commitments};
use crate::{
    Accumulator,
    secagg::{
        Fault,
        message::{Alive, Survivors},
        set::RankSet,
        terms::Terms,
    },
};

#[cfg_attr(test, derive(Clone))]
pub(super) struct Agreeing {
    pub(super) roster: Roster,
    /// U2.
    sharers: RankSet,
    /// U3.
    survivors: RankSet,
    commitments: Vec<Option<Commitments>>,
    sum: Accumulator,
    /// What everybody signs.
    signed: Vec<u8>,
    /// By rank.
    signatures: Vec<Option<[u8; 64]>>,
}

impl Agreeing {
    pub(super) fn new(
        terms: &Terms,
        roster: Roster,
        sharers: RankSet,
        survivors: RankSet,
        commitments: Vec<Option<Commitments>>,
        sum: Accumulator,
    ) -> Self {
        let signed = Survivors { survivors: survivors.clone() }.signed_bytes(&terms.session, &roster.roll);
        let signatures = vec![None; survivors.universe() as usize];
        Self { roster, sharers, survivors, commitments, sum, signed, signatures }
    }
    pub(super) fn expected(&self) -> Vec<u32> {
        self.roster.indices(&self.survivors)
    }
    pub(super) fn message_for(&self, to: u32) -> Option<Survivors> {
        self.roster.rank(to, &self.survivors)?;
        Some(Survivors { survivors: self.survivors.clone() })
    }
    pub(super) fn receive(&mut self, from: u32, message: Alive) -> Result<(), Fault> {
        let rank = self.roster.member(from, &self.survivors)?;
        if !self.roster.members[rank as usize].identity.verifies(&self.signed, &message.signature) {
            return Err(Fault::Signature { rank });
        }
        self.signatures[rank as usize] = Some(message.signature);
        Ok(())
    }

    /// U4: who signed. Of these, those with t signing neighbours can be asked for shares.
    pub(super) fn close(self) -> Result<Unmasking, Fault> {
        let n = self.survivors.universe();
        let signers = RankSet::of(n, |rank| self.signatures[rank as usize].is_some());
        let threshold = self.roster.plan.threshold() as usize;
        let holders = RankSet::of(n, |rank| signers.contains(rank) && self.roster.neighbours_in(rank, &signers).count() >= threshold);
        self.roster.recoverable(&self.sharers, &holders)?;
        Ok(Unmasking::new(self.roster, self.sharers, self.survivors, holders, self.signatures, self.commitments, self.sum))
    }
}
