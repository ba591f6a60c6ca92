//! Committing: the sum is complete; its mean becomes the next global model.

use std::collections::BTreeMap;

use super::{DropReason, Terms, Totals, attempts::Attempts, collecting::Collecting, exchanging::Exchanging};
use crate::{
    digest::Digest,
    fault::{Expiry, Fault, Misbehaviour, Misuse},
    ids::{NodeId, SessionId},
    machine::Decision,
    run::{Effect, Event},
};

/// The shell decodes the sum.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Committing {
    pub(crate) attempts: Attempts,
    pub(crate) terms: Box<Terms>,
    /// Whose updates are in the sum, and what they were.
    pub(crate) updates: BTreeMap<NodeId, Digest>,
    /// Who had no part.
    pub(crate) dropped: BTreeMap<NodeId, DropReason>,
}

impl From<Collecting> for Committing {
    fn from(collecting: Collecting) -> Self {
        let Collecting { attempts, terms, updates, dropped, .. } = collecting;
        Self { attempts, terms, updates, dropped }
    }
}

impl From<Exchanging> for Committing {
    fn from(exchanging: Exchanging) -> Self {
        let Exchanging { attempts, terms, updates, dropped, .. } = exchanging;
        Self { attempts, terms, updates, dropped }
    }
}

impl Committing {
    /// An update comes late: a repetition is answered as before, anything else is too late.
    pub(crate) fn update(&self, node: NodeId, session: SessionId, digest: Digest) -> Result<Decision<Event, Effect>, Fault> {
        if session != self.terms.session {
            return Err(Expiry::Session.into());
        }
        if !self.terms.has(&node) {
            return Err(Misbehaviour::NotInCohort { node }.into());
        }
        match self.updates.get(&node) {
            Some(first) if *first == digest => Ok(Decision::nothing()),
            Some(first) => Err(Misbehaviour::SecondUpdate { node, first: *first, second: digest }.into()),
            None => Err(Expiry::Dropped { node }.into()),
        }
    }

    /// The new parameters are stored.
    pub(crate) fn aggregated(&self, session: SessionId, totals: &Totals) -> Result<(), Fault> {
        if session != self.terms.session {
            return Err(Expiry::Session.into());
        }
        if totals.nodes as usize != self.updates.len() {
            let why = format!("it sums {} updates, {} were accepted", totals.nodes, self.updates.len());
            return Err(Misuse::State { what: "the aggregate".into(), why }.into());
        }
        Ok(())
    }
}
