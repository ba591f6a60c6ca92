//! A run: rounds, their evaluation, and what becomes of the result.

mod event;
mod message;

use std::collections::BTreeMap;

pub use event::{Created, Event};
pub use message::{CandidateOutcome, Effect, EvaluationRecord, Failure, Input, Refused, Released};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    fault::Fault,
    ids::{NodeId, SessionId},
    machine::{Cx, Decision, Machine},
    round::Terms,
    spec::Spec,
    time::Timestamp,
};

/// A federated run as a state machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    created: Created,
}

impl Run {
    /// The run that begins so. [`Event::Created`] with the same content is the first event of its stream.
    ///
    /// # Errors
    /// If the updates cannot be laid on the grid, or the model has nothing to train.
    pub fn create(created: Created) -> Result<Self, Fault> {
        Ok(Self { created })
    }

    /// The run that these events tell of: the stream must begin with [`Event::Created`].
    ///
    /// # Errors
    /// If it does not.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, Fault> {
        let mut events = events.into_iter();
        let Some(Event::Created(created)) = events.next() else {
            return Err(crate::fault::Misuse::State { what: "a run's events".into(), why: "the first one is not `created`".into() }.into());
        };
        Ok(events.fold(Self::create((**created).clone())?, Machine::apply))
    }

    /// How it began.
    pub fn created(&self) -> &Created {
        &self.created
    }
}

impl Machine for Run {
    type Input = Input;
    type Event = Event;
    type Effect = Effect;

    fn decide(&self, _cx: &mut Cx<'_>, _input: Input) -> Result<Decision<Event, Effect>, Fault> {
        Ok(Decision::nothing())
    }
    fn apply(self, _event: &Event) -> Self {
        self
    }
    fn recover(&self, _cx: &mut Cx<'_>) -> Decision<Event, Effect> {
        Decision::nothing()
    }
    fn deadline(&self) -> Option<Timestamp> {
        None
    }
}
