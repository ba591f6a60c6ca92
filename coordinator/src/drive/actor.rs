//! The driver itself.

use std::{sync::Arc, time::Duration};

use sapwood_failpoint::Killed;
use sapwood_protocol::{Cx, Decision, Fault, Secrets, fault::Lack};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{Context, Hands, Mail, Protocol, points};
use crate::store::{Append, Intent, Lease, NewEvent, Store, StoreError, StreamName, Submitted};

/// Mail decided on in one commit.
const BATCH: usize = 256;
/// How long a lease lasts unless it is renewed, and how often it is.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
const RENEW: Duration = Duration::from_secs(10);
/// Between two looks at the roster: a thousand nodes that come at once are looked at once.
const ROSTER_PAUSE: Duration = Duration::from_millis(50);
/// A deadline that a machine does not move on from is not asked about more often.
const TICK_PAUSE: Duration = Duration::from_millis(250);
/// Between two attempts to read or write while the store does not work.
const RETRY: [Duration; 4] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];

/// How a driver came to its end.
#[derive(Debug)]
pub enum End {
    /// The protocol is over.
    Over,
    /// The process stops; the stream goes on later.
    Stopped,
    /// Another coordinator has the stream, or it cannot be read.
    Lost(StoreError),
}

/// Why a step was not made.
enum Broken {
    Killed(Killed),
    Lost(StoreError),
    /// Asked to stop while the store did not work.
    Stopped,
}

impl From<Killed> for Broken {
    fn from(killed: Killed) -> Self {
        Self::Killed(killed)
    }
}

/// The driver of one stream.
pub struct Actor<M: Protocol, H> {
    cx: Context,
    lease: Lease,
    machine: Arc<M>,
    /// Events in the stream.
    length: u64,
    hands: H,
    mailbox: mpsc::Receiver<Mail<M::Input>>,
    roster: watch::Receiver<u64>,
    secrets: Box<dyn Secrets>,
    submitted: Option<Submitted>,
}

struct Answer {
    to: Option<oneshot::Sender<Result<(), Fault>>>,
    verdict: Result<(), Fault>,
}

impl<M: Protocol, H: Hands<M>> Actor<M, H> {
    /// Takes the lease on a new stream and commits its first event, from which `machine` was made.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the stream exists, or the submission was made already.
    pub async fn create(
        cx: Context,
        name: StreamName,
        machine: M,
        first: M::Event,
        hands: H,
        mailbox: mpsc::Receiver<Mail<M::Input>>,
        submitted: Option<Submitted>,
    ) -> Result<Result<Self, StoreError>, Killed> {
        let mut actor = match Self::lease(cx, name, machine, hands, mailbox).await {
            Ok(actor) => actor,
            Err(error) => return Ok(Err(error)),
        };
        actor.submitted = submitted;
        let machine = M::clone(&actor.machine);
        match actor.carry_out(machine, vec![first], Vec::new()).await {
            Ok(_) => {}
            Err(Broken::Lost(error)) => return Ok(Err(error)),
            Err(Broken::Stopped) => return Ok(Err(StoreError::unavailable(crate::store::Trouble::Closed))),
            Err(Broken::Killed(killed)) => return Err(killed),
        }
        Ok(Ok(actor))
    }

    /// Takes the lease on a stream and reads it. [`Actor::run`] goes on from there as after a crash.
    pub async fn open(cx: Context, name: StreamName, hands: H, mailbox: mpsc::Receiver<Mail<M::Input>>) -> Result<Self, StoreError> {
        let (machine, _) = load::<M>(&*cx.store, &name).await?;
        let mut actor = Self::lease(cx, name, machine, hands, mailbox).await?;
        // Read again: before the lease somebody else may have written.
        actor.load().await?;
        actor.hands.adopted(&actor.machine);
        Ok(actor)
    }

    async fn lease(
        cx: Context,
        name: StreamName,
        machine: M,
        hands: H,
        mailbox: mpsc::Receiver<Mail<M::Input>>,
    ) -> Result<Self, StoreError> {
        let now = cx.clock.now();
        let lease = cx.writer.take_lease(name, cx.holder.to_string(), now, now + LEASE).await?;
        let (secrets, roster) = ((cx.secrets)(), cx.fleet.changes());
        Ok(Self { cx, lease, machine: Arc::new(machine), length: 0, hands, mailbox, roster, secrets, submitted: None })
    }

    /// Drives until the end. `recover`: first do again what a crash may have left undone.
    pub async fn run(mut self, recover: bool) -> Result<End, Killed> {
        let outcome = self.drive(recover).await;
        if !matches!(outcome, Err(Broken::Killed(_) | Broken::Lost(StoreError::Fenced { .. }))) {
            let _ = self.cx.writer.write(Intent::ReleaseLease(self.lease.clone())).await;
        }
        match outcome {
            Ok(end) => Ok(end),
            Err(Broken::Stopped) => Ok(End::Stopped),
            Err(Broken::Lost(error)) => Ok(End::Lost(error)),
            Err(Broken::Killed(killed)) => Err(killed),
        }
    }

    async fn drive(&mut self, recover: bool) -> Result<End, Broken> {
        if recover {
            self.recover().await?;
        }
        let stopping = self.cx.life.clone();
        let mut renewal = tokio::time::interval_at(Instant::now() + RENEW, RENEW);
        let mut next_roster = Instant::now();
        let mut roster_due = false;
        let mut next_tick = Instant::now();
        let mut batch = Vec::new();
        while !self.machine.is_over() {
            let deadline = self.machine.deadline().map(|at| self.cx.clock.instant(at).max(next_tick));
            tokio::select! {
                biased;
                () = stopping.stopping() => return Ok(End::Stopped),
                received = self.mailbox.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return Ok(End::Stopped);
                    }
                }
                changed = self.roster.changed(), if !roster_due => {
                    roster_due = changed.is_ok();
                    continue;
                }
                () = tokio::time::sleep_until(next_roster), if roster_due => {
                    roster_due = false;
                    next_roster = Instant::now() + ROSTER_PAUSE;
                    match self.hands.roster(&self.machine) {
                        Some(input) => batch.push(Mail { input, answer: None }),
                        None => continue,
                    }
                }
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if self.machine.deadline().is_some_and(|at| self.cx.clock.now() < at) {
                        continue;
                    }
                    next_tick = Instant::now() + TICK_PAUSE;
                    batch.push(Mail { input: M::tick(), answer: None });
                }
                _ = renewal.tick() => {
                    self.renew().await?;
                    continue;
                }
            }
            self.step(std::mem::take(&mut batch)).await?;
        }
        Ok(End::Over)
    }

    async fn renew(&mut self) -> Result<(), Broken> {
        let expires = self.cx.clock.now() + LEASE;
        match self.cx.writer.write(Intent::RenewLease { lease: self.lease.clone(), expires }).await {
            Err(error @ StoreError::Fenced { .. }) => Err(Broken::Lost(error)),
            Err(error) => {
                tracing::warn!(stream = %self.lease.resource, %error, "the lease was not renewed");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Decides on all of `mail`, commits once, and carries out what follows; again for what that brings at once.
    async fn step(&mut self, mail: Vec<Mail<M::Input>>) -> Result<(), Broken> {
        let mut mail = mail;
        while !mail.is_empty() {
            let mut next = M::clone(&self.machine);
            let (mut events, mut effects, mut answers) = (Vec::new(), Vec::new(), Vec::new());
            for Mail { input, answer } in mail.drain(..) {
                let mut cx = Cx { now: self.cx.clock.now(), secrets: &mut *self.secrets };
                let verdict = next.decide(&mut cx, input).map(|decision| {
                    for event in &decision.events {
                        next = next.clone().apply(event);
                    }
                    events.extend(decision.events);
                    effects.extend(decision.effects);
                });
                if let (Err(fault), None) = (&verdict, &answer) {
                    tracing::debug!(stream = %self.lease.resource, %fault, "not taken");
                }
                answers.push(Answer { to: answer, verdict });
            }
            match self.carry_out(next, events, effects).await {
                Ok(followups) => {
                    reply(answers);
                    mail.extend(followups.into_iter().map(|input| Mail { input, answer: None }));
                }
                Err(Broken::Lost(error)) if !matches!(error, StoreError::Fenced { .. }) => {
                    // What was refused may have been refused for what did not happen.
                    let answers = answers.into_iter().map(|answer| Answer { verdict: Err(Fault::from(&error)), ..answer });
                    reply(answers.collect());
                    self.start_again(&error).await?;
                }
                Err(Broken::Lost(error)) => {
                    let fault = Lack::Lease { what: self.lease.resource.to_string() };
                    reply(answers.into_iter().map(|answer| Answer { verdict: Err(fault.clone().into()), ..answer }).collect());
                    return Err(Broken::Lost(error));
                }
                Err(broken) => return Err(broken),
            }
        }
        Ok(())
    }

    /// Commits, adopts, tells, does. What the effects had to say at once comes back.
    async fn carry_out(&mut self, next: M, events: Vec<M::Event>, effects: Vec<M::Effect>) -> Result<Vec<M::Input>, Broken> {
        let letters = self.hands.letters(&next, &effects);
        if !events.is_empty() || !letters.is_empty() {
            self.commit(&next, &events, letters.clone()).await?;
            for event in &events {
                points::of(M::POINTS, M::kind(event)).after_commit.reached()?;
            }
            self.machine = Arc::new(next);
            self.hands.adopted(&self.machine);
            for event in &events {
                points::of(M::POINTS, M::kind(event)).before_send.reached()?;
            }
            self.cx.fleet.post(letters);
        }
        let mut followups = Vec::new();
        for effect in effects {
            followups.extend(self.hands.perform(&self.machine, effect).await?);
        }
        Ok(followups)
    }

    async fn commit(&mut self, next: &M, events: &[M::Event], letters: Vec<crate::store::Letter>) -> Result<(), Broken> {
        let index = self.hands.index(next, events);
        let append = Append {
            lease: self.lease.clone(),
            expected: self.length,
            events: events.iter().map(encode::<M>).collect(),
            letters,
            summary: index.summary,
            ended: next.is_over(),
            release: index.release,
            submitted: self.submitted.take(),
            at: self.cx.clock.now(),
        };
        self.cx.writer.append(append).await.map_err(Broken::Lost)?;
        self.length += events.len() as u64;
        Ok(())
    }

    /// After a restart, or an unknown outcome.
    async fn recover(&mut self) -> Result<(), Broken> {
        let mut cx = Cx { now: self.cx.clock.now(), secrets: &mut *self.secrets };
        let Decision { events, effects } = self.machine.recover(&mut cx);
        let next = events.iter().fold(M::clone(&self.machine), |machine, event| machine.apply(event));
        match self.carry_out(next, events, effects).await {
            Ok(followups) => Box::pin(self.step(followups.into_iter().map(|input| Mail { input, answer: None }).collect())).await,
            Err(Broken::Lost(error)) if !matches!(error, StoreError::Fenced { .. }) => Box::pin(self.start_again(&error)).await,
            Err(broken) => Err(broken),
        }
    }

    /// The outcome of a commit is unknown: reads the stream until that works, and goes on as after a crash.
    async fn start_again(&mut self, why: &StoreError) -> Result<(), Broken> {
        tracing::warn!(stream = %self.lease.resource, error = %why, "reading the stream again");
        self.hands.forget();
        let mut patience = RETRY.iter().chain(std::iter::repeat(&RETRY[RETRY.len() - 1]));
        loop {
            let pause = *patience.next().expect("it repeats for ever");
            tokio::select! {
                () = self.cx.life.stopping() => return Err(Broken::Stopped),
                () = tokio::time::sleep(pause) => {}
            }
            match self.load().await {
                Ok(()) => {
                    // Writing must work again, too, or each recovery would end here.
                    if self.renew_now().await? {
                        break;
                    }
                }
                Err(error @ StoreError::Corrupt { .. }) => return Err(Broken::Lost(error)),
                Err(error) => tracing::warn!(stream = %self.lease.resource, %error, "it still cannot be read"),
            }
        }
        self.hands.adopted(&self.machine);
        Box::pin(self.recover()).await
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        let (machine, length) = load(&*self.cx.store, &self.lease.resource).await?;
        (self.machine, self.length) = (Arc::new(machine), length);
        Ok(())
    }

    async fn renew_now(&mut self) -> Result<bool, Broken> {
        let expires = self.cx.clock.now() + LEASE;
        match self.cx.writer.write(Intent::RenewLease { lease: self.lease.clone(), expires }).await {
            Ok(_) => Ok(true),
            Err(error @ StoreError::Fenced { .. }) => Err(Broken::Lost(error)),
            Err(_) => Ok(false),
        }
    }
}

fn reply(answers: Vec<Answer>) {
    for Answer { to, verdict } in answers {
        if let Some(to) = to {
            // Whoever has gone will ask again.
            let _ = to.send(verdict);
        }
    }
}

fn encode<M: Protocol>(event: &M::Event) -> NewEvent {
    let payload = serde_json::to_vec(event).expect("events have string keys and finite numbers");
    NewEvent { kind: M::kind(event), payload }
}

/// The state that a stream tells of, and how many events it has.
pub(crate) async fn load<M: Protocol>(store: &dyn Store, name: &StreamName) -> Result<(M, u64), StoreError> {
    let rows = store.events(name, 0).await?;
    let corrupt = |why: String| StoreError::Corrupt { what: name.to_string(), why };
    let parse = |row: &crate::store::EventRow| serde_json::from_slice(&row.payload).map_err(|e| corrupt(format!("event {}: {e}", row.seq)));
    let events: Vec<M::Event> = rows.iter().map(parse).collect::<Result<_, _>>()?;
    let machine = M::restore(&events).map_err(|fault| corrupt(fault.to_string()))?;
    Ok((machine, events.len() as u64))
}
