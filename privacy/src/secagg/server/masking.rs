//! R2: delivers the envelopes and adds up masked vectors as they come.

use super::{Agreeing, Roster};
use crate::{
    Accumulator,
    secagg::{
        Fault,
        message::{Dealt, Delivery, ShareKeys},
        set::RankSet,
        terms::Terms,
    },
};

#[cfg_attr(test, derive(Clone))]
pub(super) struct Masking {
    pub(super) roster: Roster,
    /// U2.
    sharers: RankSet,
    /// By rank.
    shared: Vec<Option<ShareKeys>>,
    arrived: RankSet,
    sum: Accumulator,
}

/// What a dealer committed to.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Commitments {
    /// H(b_i).
    pub(super) seed: [u8; 32],
    /// To the share of the mask key and of the seed, for each neighbour in the order of ranks.
    pub(super) shares: Vec<[[u8; 32]; 2]>,
}

impl Masking {
    pub(super) fn new(terms: &Terms, roster: Roster, sharers: RankSet, shared: Vec<Option<ShareKeys>>) -> Self {
        let n = sharers.universe();
        let sum = Accumulator::new(terms.length.get() as usize, terms.bits, n);
        Self { roster, sharers, shared, arrived: RankSet::empty(n), sum }
    }
    pub(super) fn expected(&self) -> Vec<u32> {
        self.roster.indices(&self.sharers)
    }
    pub(super) fn received(&self) -> u32 {
        self.arrived.count()
    }
    pub(super) fn message_for(&self, to: u32) -> Option<Delivery> {
        let rank = self.roster.rank(to, &self.sharers)?;
        let envelopes = self.roster.neighbours_in(rank, &self.sharers).filter_map(|peer| Some(self.dealt(peer, rank)?.envelope));
        Some(Delivery { sharers: self.sharers.clone(), envelopes: envelopes.collect() })
    }
    fn dealt(&self, from: u32, to: u32) -> Option<&Dealt> {
        let place = self.roster.place(from, to)?;
        self.shared[from as usize].as_ref()?.dealt.get(place)
    }

    pub(super) fn receive<B: AsRef<[u8]>>(&mut self, from: u32, chunks: &[B]) -> Result<(), Fault> {
        let rank = self.roster.member(from, &self.sharers)?;
        if self.arrived.contains(rank) {
            return Err(Fault::SecondInput);
        }
        self.sum.add_chunks(chunks)?;
        self.arrived.insert(rank);
        Ok(())
    }

    /// U3: whose vectors are in the sum.
    pub(super) fn close(self, terms: &Terms) -> Result<Agreeing, Fault> {
        let (have, need) = (self.arrived.count(), self.roster.plan.survivors());
        if have < need {
            return Err(Fault::TooFew { phase: "behind the masked input", have, need });
        }
        if !self.roster.graph.connects(&self.arrived) {
            return Err(Fault::Disconnected);
        }
        self.roster.recoverable(&self.sharers, &self.arrived)?;
        let commitments = self.shared.into_iter().map(|shared| {
            shared.map(|ShareKeys { seed_commitment, dealt }| Commitments {
                seed: seed_commitment,
                shares: dealt.into_iter().map(|dealt| dealt.commitments).collect(),
            })
        });
        let commitments = commitments.collect();
        Ok(Agreeing::new(terms, self.roster, self.sharers, self.arrived, commitments, self.sum))
    }
}
