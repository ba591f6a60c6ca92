//! A store in memory: for simulations, which drop the process and keep this.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use sapwood_protocol::{Digest, NodeId, ReleaseId, Timestamp};

use super::{
    Append, Done, Enrollment, EventRow, Intent, Later, Lease, Letter, NodeRow, ReleaseRow, Store, StoreError, StreamName, StreamRow,
    Submitted,
};

/// Clones share one state, which outlives any of them.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Tables>>);

#[derive(Clone, Default)]
struct Tables {
    streams: BTreeMap<StreamName, (StreamRow, Vec<EventRow>)>,
    order: Vec<StreamName>,
    letters: BTreeMap<(NodeId, String), Letter>,
    leases: HashMap<StreamName, LeaseRow>,
    nodes: BTreeMap<NodeId, NodeRow>,
    enrollments: Vec<Enrollment>,
    releases: Vec<ReleaseRow>,
    submissions: HashMap<String, Submitted>,
    constants: HashMap<String, Vec<u8>>,
}

#[derive(Clone)]
struct LeaseRow {
    holder: Option<String>,
    epoch: u64,
    expires: Timestamp,
}

impl MemoryStore {
    /// A backup: a store of its own with the same content.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.with(|tables| tables.clone()))))
    }

    /// Runs `body` on the tables. No body awaits, and none leaves the tables half changed.
    fn with<T>(&self, body: impl FnOnce(&mut Tables) -> T) -> T {
        body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now<T: Send + 'static>(value: Result<T, StoreError>) -> Later<'static, T> {
        Box::pin(std::future::ready(value))
    }
}

impl Tables {
    fn fence(&self, lease: &Lease) -> Result<(), StoreError> {
        let holds =
            self.leases.get(&lease.resource).is_some_and(|row| row.epoch == lease.epoch && row.holder.as_ref() == Some(&lease.holder));
        if holds { Ok(()) } else { Err(StoreError::Fenced { resource: lease.resource.to_string() }) }
    }

    /// Checks everything first, so that a refusal leaves no trace.
    fn append(&mut self, append: Append) -> Result<Done, StoreError> {
        let Append { lease, expected, events, letters, summary, ended, release, submitted, at } = append;
        self.fence(&lease)?;
        let name = &lease.resource;
        let length = self.streams.get(name).map_or(0, |(row, _)| row.length);
        if length != expected {
            return Err(StoreError::Conflict { what: name.to_string() });
        }
        if let Some(submitted) = &submitted
            && self.submissions.contains_key(&submitted.token)
        {
            return Err(StoreError::Conflict { what: format!("submission {}", submitted.token) });
        }
        if let Some(release) = &release {
            match self.releases.iter().find(|row| row.name == release.name) {
                Some(row) if row.document != release.document => {
                    return Err(StoreError::Conflict { what: format!("release {}", release.name) });
                }
                Some(_) => {}
                None => self.releases.push(release.clone()),
            }
        }
        if !self.streams.contains_key(name) {
            self.order.push(name.clone());
        }
        let (row, stored) = self.streams.entry(name.clone()).or_insert_with(|| {
            let row = StreamRow { name: name.clone(), length: 0, live: true, summary: b"{}".to_vec(), created: at, updated: at };
            (row, Vec::new())
        });
        for (event, seq) in events.into_iter().zip(expected..) {
            stored.push(EventRow { seq, kind: event.kind.into(), payload: event.payload, at });
        }
        row.length = stored.len() as u64;
        row.live &= !ended;
        row.updated = at;
        if let Some(summary) = summary {
            row.summary = summary;
        }
        for letter in letters {
            self.letters.insert((letter.node.clone(), letter.topic.clone()), letter);
        }
        if let Some(submitted) = submitted {
            self.submissions.insert(submitted.token.clone(), submitted);
        }
        Ok(Done::Written)
    }

    fn carry_out(&mut self, intent: Intent) -> Result<Done, StoreError> {
        match intent {
            Intent::Append(append) => return self.append(*append),
            Intent::TakeLease { resource, holder, now, expires } => {
                let row = self.leases.entry(resource.clone()).or_insert(LeaseRow { holder: None, epoch: 0, expires: now });
                if let Some(other) = row.holder.as_ref().filter(|other| **other != holder && row.expires > now) {
                    return Err(StoreError::Held { resource: resource.to_string(), holder: other.clone(), until: row.expires });
                }
                *row = LeaseRow { holder: Some(holder.clone()), epoch: row.epoch + 1, expires };
                return Ok(Done::Leased(Lease { resource, holder, epoch: row.epoch }));
            }
            Intent::RenewLease { lease, expires } => {
                self.fence(&lease)?;
                if let Some(row) = self.leases.get_mut(&lease.resource) {
                    row.expires = expires;
                }
            }
            Intent::ReleaseLease(lease) => {
                if self.fence(&lease).is_ok()
                    && let Some(row) = self.leases.get_mut(&lease.resource)
                {
                    row.holder = None;
                }
            }
            Intent::PutNode(mut row) => {
                if self.nodes.get(&row.name).map_or(0, |stored| stored.version) != row.version {
                    return Err(StoreError::Conflict { what: format!("node {}", row.name) });
                }
                row.version += 1;
                self.nodes.insert(row.name.clone(), *row);
            }
            Intent::Enroll(request) => {
                self.enrollments.retain(|row| row.reply.is_some() || row.at + Enrollment::PENDING_FOR >= request.at);
                match self.enrollments.iter().find(|row| row.token == request.token) {
                    Some(row) if row.id != request.id => {
                        return Err(StoreError::Conflict { what: format!("enrolment token {}", request.token) });
                    }
                    Some(_) => {}
                    None if self.enrollments.iter().filter(|row| row.reply.is_none()).count() >= Enrollment::MOST_PENDING => {
                        return Err(Enrollment::full());
                    }
                    None => self.enrollments.push(*request),
                }
            }
            Intent::Answer { id, reply } => {
                let row = self.enrollments.iter_mut().find(|row| row.id == id);
                let row = row.ok_or_else(|| StoreError::Missing { what: format!("enrolment request {id}") })?;
                row.reply.get_or_insert(reply);
            }
            Intent::Forget { topic } => self.letters.retain(|(_, about), _| *about != topic),
        }
        Ok(Done::Written)
    }
}

impl Store for MemoryStore {
    fn write(&self, group: Vec<Intent>) -> Later<'_, Vec<Result<Done, StoreError>>> {
        Self::now(Ok(self.with(|tables| group.into_iter().map(|intent| tables.carry_out(intent)).collect())))
    }
    fn stream<'a>(&'a self, name: &'a StreamName) -> Later<'a, Option<StreamRow>> {
        Self::now(Ok(self.with(|tables| tables.streams.get(name).map(|(row, _)| row.clone()))))
    }
    fn streams<'a>(&'a self, kind: &'a str, live_only: bool) -> Later<'a, Vec<StreamRow>> {
        Self::now(Ok(self.with(|tables| {
            let rows = tables.order.iter().filter_map(|name| tables.streams.get(name)).map(|(row, _)| row);
            rows.filter(|row| row.name.kind() == kind && (row.live || !live_only)).cloned().collect()
        })))
    }
    fn events<'a>(&'a self, name: &'a StreamName, from: u64) -> Later<'a, Vec<EventRow>> {
        Self::now(Ok(self.with(|tables| {
            let events = tables.streams.get(name).map(|(_, events)| events.as_slice()).unwrap_or_default();
            events.iter().filter(|event| event.seq >= from).cloned().collect()
        })))
    }
    fn letters<'a>(&'a self, node: &'a NodeId) -> Later<'a, Vec<Letter>> {
        Self::now(Ok(self.with(|tables| tables.letters.values().filter(|letter| letter.node == *node).cloned().collect())))
    }
    fn letters_about<'a>(&'a self, topic: &'a str) -> Later<'a, Vec<Letter>> {
        Self::now(Ok(self.with(|tables| tables.letters.values().filter(|letter| letter.topic == topic).cloned().collect())))
    }
    fn nodes(&self) -> Later<'_, Vec<NodeRow>> {
        Self::now(Ok(self.with(|tables| tables.nodes.values().cloned().collect())))
    }
    fn node<'a>(&'a self, name: &'a NodeId) -> Later<'a, Option<NodeRow>> {
        Self::now(Ok(self.with(|tables| tables.nodes.get(name).cloned())))
    }
    fn enrollment(&self, id: Digest) -> Later<'_, Option<Enrollment>> {
        Self::now(Ok(self.with(|tables| tables.enrollments.iter().find(|row| row.id == id).cloned())))
    }
    fn pending_enrollments(&self) -> Later<'_, Vec<Enrollment>> {
        Self::now(Ok(self.with(|tables| tables.enrollments.iter().filter(|row| row.reply.is_none()).cloned().collect())))
    }
    fn releases(&self) -> Later<'_, Vec<ReleaseRow>> {
        Self::now(Ok(self.with(|tables| tables.releases.clone())))
    }
    fn release<'a>(&'a self, name: &'a ReleaseId) -> Later<'a, Option<ReleaseRow>> {
        Self::now(Ok(self.with(|tables| tables.releases.iter().find(|row| row.name == *name).cloned())))
    }
    fn submission<'a>(&'a self, token: &'a str) -> Later<'a, Option<Submitted>> {
        Self::now(Ok(self.with(|tables| tables.submissions.get(token).cloned())))
    }
    fn constant<'a>(&'a self, key: &'a str, initial: Vec<u8>) -> Later<'a, Vec<u8>> {
        Self::now(Ok(self.with(|tables| tables.constants.entry(key.to_owned()).or_insert(initial).clone())))
    }
}
