//! Who has keys in this session: ranks, indices, identities, and the graph over them.

use crate::secagg::{
    Fault, Graph,
    message::{Advertise, Roll},
    plan::Plan,
    set::RankSet,
    terms::{IdentityKey, Terms},
};

/// U1, fixed when key advertisement closes.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Roster {
    pub(super) plan: Plan,
    pub(super) graph: Graph,
    /// Digest of the roll.
    pub(super) roll: [u8; 32],
    pub(super) members: Vec<Member>,
    /// From index to rank.
    ranks: Vec<Option<u32>>,
    /// By rank, each in ascending order.
    neighbours: Vec<Vec<u32>>,
}

#[cfg_attr(test, derive(Clone))]
pub(super) struct Member {
    pub(super) index: u32,
    pub(super) identity: IdentityKey,
    /// s_pk.
    pub(super) mask_key: [u8; 32],
}

impl Roster {
    /// Ranks follow the indices.
    pub(super) fn new(terms: &Terms, cohort: u32, adverts: &[(u32, Advertise)]) -> Result<(Self, Roll), Fault> {
        let plan = terms.plan(adverts.len() as u32)?;
        let entries = adverts.iter().map(|(_, advertise)| (advertise.identity, advertise.digest())).collect();
        let roll = Roll { degree: plan.degree(), threshold: plan.threshold(), entries };
        let digest = roll.digest(terms);
        let mut ranks = vec![None; cohort as usize];
        for (rank, (index, _)) in (0..).zip(adverts) {
            ranks[*index as usize] = Some(rank);
        }
        let members = adverts
            .iter()
            .map(|(index, advertise)| Member { index: *index, identity: advertise.identity, mask_key: advertise.mask_key })
            .collect();
        let graph = Graph::new(&plan, &digest);
        let neighbours = (0..plan.participants()).map(|rank| graph.neighbours(rank)).collect();
        Ok((Self { graph, plan, roll: digest, members, ranks, neighbours }, roll))
    }

    /// The rank of `index` if it is in `set`.
    pub(super) fn rank(&self, index: u32, set: &RankSet) -> Option<u32> {
        let rank = (*self.ranks.get(index as usize)?)?;
        set.contains(rank).then_some(rank)
    }
    /// As [`Roster::rank`].
    ///
    /// # Errors
    /// [`Fault::NotTakingPart`].
    pub(super) fn member(&self, index: u32, set: &RankSet) -> Result<u32, Fault> {
        self.rank(index, set).ok_or(Fault::NotTakingPart { index })
    }
    pub(super) fn indices(&self, set: &RankSet) -> Vec<u32> {
        set.iter().map(|rank| self.members[rank as usize].index).collect()
    }
    /// In ascending order.
    pub(super) fn neighbours(&self, rank: u32) -> &[u32] {
        &self.neighbours[rank as usize]
    }
    /// Where `holder` stands among the neighbours of `owner`.
    pub(super) fn place(&self, owner: u32, holder: u32) -> Option<usize> {
        self.neighbours(owner).binary_search(&holder).ok()
    }
    /// The neighbours of `rank` in `set`, in ascending order.
    pub(super) fn neighbours_in(&self, rank: u32, set: &RankSet) -> impl Iterator<Item = u32> {
        self.neighbours(rank).iter().copied().filter(|peer| set.contains(*peer))
    }
    /// Whether all who dealt shares have t neighbours in `holders`.
    ///
    /// # Errors
    /// [`Fault::Unrecoverable`] names the first who has not.
    pub(super) fn recoverable(&self, dealers: &RankSet, holders: &RankSet) -> Result<(), Fault> {
        let need = self.plan.threshold();
        for owner in dealers.iter() {
            let have = self.neighbours_in(owner, holders).count() as u32;
            if have < need {
                return Err(Fault::Unrecoverable { owner, have, need });
            }
        }
        Ok(())
    }
}
