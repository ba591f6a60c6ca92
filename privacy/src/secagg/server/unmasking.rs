//! R4: collects one share a neighbour and takes the masks off the sum.

use super::{Roster, Sum, masking::Commitments};
use crate::{
    Accumulator,
    secagg::{
        Fault,
        channel::{Secret, Which, agree, commit_seed, commit_share, own_seed, pair_seed, public},
        mask::{Mask, Sign, apply},
        message::{Consistency, Unmask},
        set::RankSet,
        shamir::{Recovery, Share},
        terms::Terms,
    },
};

/// Masks whose expanded keys are held at a time: enough to amortise a pass over the sum, few enough for the second cache.
const BATCH: usize = 256;

#[cfg_attr(test, derive(Clone))]
pub(super) struct Unmasking {
    pub(super) roster: Roster,
    /// U2.
    sharers: RankSet,
    /// U3.
    survivors: RankSet,
    /// Who is asked.
    holders: RankSet,
    signatures: Vec<Option<[u8; 64]>>,
    commitments: Vec<Option<Commitments>>,
    sum: Accumulator,
    /// By owner: t shares at most, with the ranks of their holders.
    shares: Vec<Vec<(u32, Share)>>,
    complaints: Vec<(u32, u32)>,
}

impl Unmasking {
    pub(super) fn new(
        roster: Roster,
        sharers: RankSet,
        survivors: RankSet,
        holders: RankSet,
        signatures: Vec<Option<[u8; 64]>>,
        commitments: Vec<Option<Commitments>>,
        sum: Accumulator,
    ) -> Self {
        let shares = vec![Vec::new(); sharers.universe() as usize];
        Self { roster, sharers, survivors, holders, signatures, commitments, sum, shares, complaints: Vec::new() }
    }
    pub(super) fn expected(&self) -> Vec<u32> {
        self.roster.indices(&self.holders)
    }
    pub(super) fn message_for(&self, to: u32) -> Option<Consistency> {
        let rank = self.roster.rank(to, &self.holders)?;
        // t of them prove as much as all.
        let signatures = self.roster.neighbours_in(rank, &self.survivors);
        let signatures = signatures.filter_map(|peer| Some((peer, self.signatures[peer as usize]?)));
        Some(Consistency { signatures: signatures.take(self.roster.plan.threshold() as usize).collect() })
    }

    /// A share that is not the one that was dealt is left out, and counts as a complaint: its holder may have bent it, or its dealer may
    /// have said that it dealt another one. The rest of the message is used, or one dealer could silence all its neighbours.
    pub(super) fn receive(&mut self, terms: &Terms, from: u32, message: Unmask) -> Result<(), Fault> {
        let holder = self.roster.member(from, &self.holders)?;
        let owners: Vec<u32> = self.roster.neighbours_in(holder, &self.sharers).collect();
        if message.shares.len() != owners.len() {
            return Err(Fault::Count { actual: message.shares.len() as u32, expected: owners.len() as u32 });
        }
        for (owner, share) in owners.into_iter().zip(message.shares) {
            let which = self.which(owner);
            let dealt = |share: &Share| Some(commit_share(share, which, &terms.session, owner, holder));
            match share.filter(|share| self.commitment(owner, holder, which) == dealt(share)) {
                None => self.complaints.push((holder, owner)),
                Some(share) => self.shares[owner as usize].push((holder, share)),
            }
        }
        Ok(())
    }

    fn which(&self, owner: u32) -> Which {
        if self.survivors.contains(owner) { Which::Seed } else { Which::Key }
    }
    fn commitment(&self, owner: u32, holder: u32, which: Which) -> Option<[u8; 32]> {
        let place = self.roster.place(owner, holder)?;
        let [key, seed] = self.commitments[owner as usize].as_ref()?.shares[place];
        Some(match which {
            Which::Key => key,
            Which::Seed => seed,
        })
    }

    /// The first who lacks shares.
    pub(super) fn missing(&self) -> Option<Fault> {
        let need = self.roster.plan.threshold();
        self.sharers.iter().find_map(|owner| {
            let have = self.shares[owner as usize].len() as u32;
            (have < need).then_some(Fault::Unrecoverable { owner, have, need })
        })
    }

    pub(super) fn open(mut self, terms: &Terms, threads: usize) -> Result<Sum, Fault> {
        if let Some(fault) = self.missing() {
            return Err(fault);
        }
        // Everything is recovered and checked before the first mask comes off.
        let mut secrets = Vec::with_capacity(self.sharers.count() as usize);
        for owner in self.sharers.iter() {
            secrets.push((owner, self.recover(terms, owner)?));
        }
        let mut masks = Vec::with_capacity(BATCH);
        let lanes = self.sum.lanes_mut();
        for (owner, secret) in &secrets {
            let owner = *owner;
            if self.survivors.contains(owner) {
                masks.push(Mask::new(terms.suite, &own_seed(secret, &terms.session, owner), Sign::Minus));
            } else {
                // The vectors of its surviving neighbours still hold the masks that they share with it.
                for peer in self.roster.neighbours_in(owner, &self.survivors) {
                    let agreed = agree(secret, &self.roster.members[peer as usize].mask_key);
                    let agreed = agreed.ok_or(Fault::LowOrderKey { rank: peer })?;
                    let seed = pair_seed(&agreed, &terms.session, owner, peer);
                    masks.push(Mask::new(terms.suite, &seed, Sign::between(peer, owner).opposite()));
                }
            }
            if masks.len() >= BATCH {
                apply(lanes, &masks, threads);
                masks.clear();
            }
        }
        apply(lanes, &masks, threads);

        let index = |rank: u32| self.roster.members[rank as usize].index;
        let complaints = self.complaints.iter().map(|(by, of)| (index(*by), index(*of))).collect();
        Ok(Sum { survivors: self.roster.indices(&self.survivors), complaints, accumulator: self.sum })
    }

    /// b_j of a survivor, s_sk_j of who left; checked against what its owner committed to.
    fn recover(&self, terms: &Terms, owner: u32) -> Result<Secret, Fault> {
        let shares = self.shares[owner as usize].iter().take(self.roster.plan.threshold() as usize);
        let holders: Vec<u32> = shares.clone().map(|(holder, _)| *holder).collect();
        let bad = || Fault::BadDealer { owner };
        let secret = Recovery::new(&holders).secret(shares.map(|(_, share)| share)).ok_or_else(bad)?;
        let right = match self.which(owner) {
            Which::Seed => {
                let committed = self.commitments[owner as usize].as_ref().map(|of| of.seed);
                committed == Some(commit_seed(&secret, &terms.session, owner))
            }
            Which::Key => public(&secret) == self.roster.members[owner as usize].mask_key,
        };
        if right { Ok(secret) } else { Err(bad()) }
    }
}
