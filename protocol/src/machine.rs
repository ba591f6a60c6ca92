//! The shape of every protocol here: `decide` looks, `apply` moves.
//!
//! A shell holds a [`Machine`]. For each message or deadline it asks [`Machine::decide`], commits the events together with
//! its outbox and lease, folds them in with [`Machine::apply`], and only then carries out the effects. A crash anywhere
//! in between loses nothing: the events are the truth, and a recovered machine asks again for what it still needs.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use crate::{fault::Fault, time::Timestamp};

/// What a decision may look at besides the state and the input.
pub struct Cx<'a> {
    /// Now, by the shell's clock.
    pub now: Timestamp,
    /// Draws secrets: session ids, keys, noise. Never seeded in production, never replayed.
    pub secrets: &'a mut dyn Secrets,
}

/// A source of bytes that nobody else can know.
pub trait Secrets: Send {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// A generator for what may be replayed, such as the choice of a cohort: the same words give the same stream.
pub fn replayable(words: &[&[u8]]) -> ChaCha20Rng {
    let mut hasher = crate::digest::Hasher::default();
    for word in words {
        hasher.update(&(word.len() as u64).to_le_bytes());
        hasher.update(word);
    }
    ChaCha20Rng::from_seed(*hasher.finish().as_bytes())
}

/// What follows from an input: facts to commit, then things to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<E, F> {
    /// Facts, in order; committed together or not at all.
    pub events: Vec<E>,
    /// Things to do after the commit, in order. All of them may be asked for again after a crash.
    pub effects: Vec<F>,
}

impl<E, F> Default for Decision<E, F> {
    fn default() -> Self {
        Self { events: Vec::new(), effects: Vec::new() }
    }
}

impl<E, F> Decision<E, F> {
    /// Nothing to record, nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }
    /// One more fact.
    #[must_use]
    pub fn event(mut self, event: E) -> Self {
        self.events.push(event);
        self
    }
    /// One more thing to do.
    #[must_use]
    pub fn effect(mut self, effect: F) -> Self {
        self.effects.push(effect);
        self
    }
}

/// A protocol's participant as a pure state machine.
pub trait Machine: Sized + Clone {
    /// One message or one deadline.
    type Input;
    /// One fact.
    type Event;
    /// One thing to do.
    type Effect;

    /// What follows from `input`. On `Err` nothing has happened.
    fn decide(&self, cx: &mut Cx<'_>, input: Self::Input) -> Result<Decision<Self::Event, Self::Effect>, Fault>;

    /// The state after `event`. Infallible: what was committed has happened.
    #[must_use]
    fn apply(self, event: &Self::Event) -> Self;

    /// After a restart: what must be done again, and what must be given up because it lived in memory only.
    fn recover(&self, cx: &mut Cx<'_>) -> Decision<Self::Event, Self::Effect>;

    /// When [`Machine::decide`] wants to be asked next even if no message comes.
    fn deadline(&self) -> Option<Timestamp>;
}
