//! The shares are there. Waits for this node's own vector, and masks it.

use std::num::NonZeroU32;

use super::{Masked, advertised::Place, masked::Held};
use crate::{
    secagg::{
        Fault,
        channel::{Secret, own_seed},
        mask::{Mask, Sign, apply},
        set::RankSet,
        shamir::Share,
        terms::{IdentityKey, Terms},
    },
    wire::Packer,
};
use zeroize::Zeroizing;

/// Holds everything: masks to be put on, and the neighbours' shares.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Ready {
    pub(super) place: Place,
    /// U2.
    pub(super) sharers: RankSet,
    pub(super) own_secret: Secret,
    /// Of the neighbours in U2.
    pub(super) holdings: Vec<Holding>,
}

#[cfg_attr(test, derive(Clone))]
pub(super) struct Holding {
    pub(super) rank: u32,
    pub(super) identity: IdentityKey,
    pub(super) pair_seed: Secret,
    /// Of its mask key and of its own-mask seed; nothing if the envelope could not be opened.
    pub(super) shares: Option<(Share, Share)>,
}

impl Ready {
    /// Whether `lanes` can be masked.
    pub(super) fn check(&self, terms: &Terms, lanes: &[u32]) -> Result<(), Fault> {
        let expected = NonZeroU32::get(terms.length) as usize;
        if lanes.len() != expected {
            return Err(crate::Fault::Length { what: "elements of the vector", expected, actual: lanes.len() }.into());
        }
        match lanes.iter().position(|lane| lane & !terms.bits.mask() != 0) {
            None => Ok(()),
            Some(index) => Err(crate::Fault::Element { index, value: lanes[index], bits: terms.bits.get() }.into()),
        }
    }

    /// y_i = x_i + PRG(b_i) + Σ ±PRG(s_ij) over the neighbours in U2. After it no mask can be computed here any more.
    pub(super) fn mask(self, terms: &Terms, lanes: Vec<u32>, threads: usize) -> (Masked, Vec<u8>) {
        let mut lanes = Zeroizing::new(lanes);
        let rank = self.place.rank;
        let own = own_seed(&self.own_secret, &terms.session, rank);
        let mut masks = vec![Mask::new(terms.suite, &own, Sign::Plus)];
        masks.extend(self.holdings.iter().map(|peer| Mask::new(terms.suite, &peer.pair_seed, Sign::between(rank, peer.rank))));
        apply(&mut lanes, &masks, threads);

        let fits = terms.bits.mask();
        let mut packer = Packer::new(lanes.len(), terms.bits);
        for block in lanes.chunks_mut(1024) {
            block.iter_mut().for_each(|lane| *lane &= fits);
            packer.extend(block);
        }
        let held = self.holdings.into_iter().map(|peer| Held { rank: peer.rank, identity: peer.identity, shares: peer.shares });
        (Masked { place: self.place, sharers: self.sharers, held: held.collect() }, packer.finish())
    }
}
