//! R0: collects signed keys.

use std::collections::HashMap;

use super::{Participant, Roster, Sharing};
use crate::secagg::{Fault, channel::is_contributory, message::Advertise, terms::Terms};

#[cfg_attr(test, derive(Clone))]
pub(super) struct Advertising {
    cohort: Vec<Participant>,
    received: Vec<Option<Advertise>>,
    /// Hash of the terms.
    terms: [u8; 32],
    /// Who showed a key first.
    keys: HashMap<[u8; 32], u32>,
}

impl Advertising {
    pub(super) fn new(terms: &Terms, cohort: Vec<Participant>) -> Result<Self, Fault> {
        let mut identities = HashMap::with_capacity(cohort.len());
        for (index, participant) in (0..).zip(&cohort) {
            if let Some(first) = identities.insert(participant.identity, index) {
                return Err(Fault::Duplicate { first, second: index });
            }
        }
        let received = vec![None; cohort.len()];
        Ok(Self { cohort, received, terms: terms.hash(), keys: HashMap::new() })
    }
    pub(super) fn expected(&self) -> Vec<u32> {
        (0..self.cohort.len() as u32).collect()
    }

    /// Refuses here all that would make the sender's neighbours refuse it later: it shall cost nobody else the session.
    pub(super) fn receive(&mut self, terms: &Terms, from: u32, message: Advertise) -> Result<(), Fault> {
        let participant = self.cohort.get(from as usize).ok_or(Fault::NotTakingPart { index: from })?;
        if message.identity != participant.identity || message.context != participant.context {
            return Err(Fault::WrongIdentity { index: from });
        }
        if message.terms != self.terms {
            return Err(Fault::TermsMismatch);
        }
        if !message.identity.verifies(&message.signed_bytes(terms), &message.signature) {
            return Err(Fault::Signature { rank: from });
        }
        let keys = [message.channel_key, message.mask_key];
        for (i, key) in keys.iter().enumerate() {
            if !is_contributory(key) {
                return Err(Fault::LowOrderKey { rank: from });
            }
            if let Some(first) = self.keys.get(key).copied().or((i == 1 && keys[0] == *key).then_some(from)) {
                return Err(Fault::Duplicate { first, second: from });
            }
        }
        self.keys.extend(keys.map(|key| (key, from)));
        self.received[from as usize] = Some(message);
        Ok(())
    }

    pub(super) fn close(self, terms: &Terms) -> Result<Sharing, Fault> {
        let cohort = self.cohort.len() as u32;
        let adverts: Vec<(u32, Advertise)> = (0..).zip(self.received).filter_map(|(index, advertise)| Some((index, advertise?))).collect();
        let (have, need) = (adverts.len() as u32, terms.minimum);
        if have < need {
            return Err(Fault::TooFew { phase: "behind key advertisement", have, need });
        }
        let (roster, roll) = Roster::new(terms, cohort, &adverts)?;
        Ok(Sharing::new(roster, roll, adverts.into_iter().map(|(_, advertise)| advertise).collect()))
    }
}
