//! R1: introduces neighbours to each other and collects their encrypted shares.

use super::{Masking, Roster};
use crate::secagg::{
    Fault,
    message::{Advertise, Introduction, Roll, ShareKeys},
    set::RankSet,
    terms::Terms,
};

#[cfg_attr(test, derive(Clone))]
pub(super) struct Sharing {
    pub(super) roster: Roster,
    roll: Roll,
    /// By rank.
    adverts: Vec<Advertise>,
    everybody: RankSet,
    /// By rank.
    received: Vec<Option<ShareKeys>>,
}

impl Sharing {
    pub(super) fn new(roster: Roster, roll: Roll, adverts: Vec<Advertise>) -> Self {
        let everybody = RankSet::of(adverts.len() as u32, |_| true);
        let received = vec![None; adverts.len()];
        Self { roster, roll, adverts, everybody, received }
    }
    pub(super) fn expected(&self) -> Vec<u32> {
        self.roster.indices(&self.everybody)
    }
    pub(super) fn message_for(&self, to: u32) -> Option<Introduction> {
        let rank = self.roster.rank(to, &self.everybody)?;
        let peers = self.roster.neighbours(rank).iter().map(|peer| self.adverts[*peer as usize].clone()).collect();
        Some(Introduction { roll: self.roll.clone(), peers })
    }
    pub(super) fn receive(&mut self, from: u32, message: ShareKeys) -> Result<(), Fault> {
        let rank = self.roster.member(from, &self.everybody)?;
        let (actual, expected) = (message.dealt.len() as u32, self.roster.plan.degree());
        if actual != expected {
            return Err(Fault::Count { actual, expected });
        }
        self.received[rank as usize] = Some(message);
        Ok(())
    }

    /// U2: who shared and has t neighbours who shared, of whom the same holds.
    pub(super) fn close(mut self, terms: &Terms) -> Result<Masking, Fault> {
        let n = self.received.len() as u32;
        let mut sharers = RankSet::of(n, |rank| self.received[rank as usize].is_some());
        loop {
            let threshold = self.roster.plan.threshold() as usize;
            let lonely: Vec<u32> = sharers.iter().filter(|rank| self.roster.neighbours_in(*rank, &sharers).count() < threshold).collect();
            if lonely.is_empty() {
                break;
            }
            lonely.into_iter().for_each(|rank| sharers.remove(rank));
        }
        let (have, need) = (sharers.count(), self.roster.plan.survivors());
        if have < need {
            return Err(Fault::TooFew { phase: "behind the sharing of keys", have, need });
        }
        for rank in 0..n {
            if !sharers.contains(rank) {
                self.received[rank as usize] = None;
            }
        }
        Ok(Masking::new(terms, self.roster, sharers, self.received))
    }
}
