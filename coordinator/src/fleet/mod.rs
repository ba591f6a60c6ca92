//! The fleet: who was ever enrolled, who is here, and what each should be told.
//!
//! What nodes should know lies in the store's outbox, one letter per node and topic; a node that connects gets all of them,
//! and each new one as it is committed. Letters are levels: a node that was away gets the newest, not the history.

mod line;
#[cfg(test)]
mod tests;
mod ticket;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use sapwood_protocol::{
    DeviceClass, Fault, NodeId, RingId, Secrets, Ticket, Timestamp,
    fault::{Lack, Misbehaviour, Misuse},
    membership::SignedMembership,
    release::view::NodeInfo,
    rollout::{Assignment, NodeStatus, NodeView},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use self::line::{Order, Orders};
use self::{
    line::Levels,
    ticket::{Expected, Tickets},
};
use crate::{
    clock::Clock,
    drive::Life,
    store::{Letter, LetterKind, NodeRow, Store, StoreError, Writer},
};

/// The topic of rollouts' orders.
pub const ASSIGNMENT: &str = "assignment";
/// The label that names a node's ring.
const RING: &str = "ring";
/// Key of the constant that codes tickets.
const TICKET_KEY: &str = "ticket-key";
/// A row that others keep changing is not written more often.
const TRIES: usize = 8;

/// What a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProfile {
    /// Processor.
    pub arch: String,
    /// Processor cores.
    pub cores: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Which releases it can run.
    pub device_class: DeviceClass,
    /// ONNX Runtime's version, empty if there is none.
    pub runtime: String,
    /// Execution providers.
    pub accelerators: Vec<String>,
    /// Operating system.
    pub os: String,
    /// Of the node's program.
    pub agent_version: String,
    /// Where its inference server listens.
    pub serving_address: String,
    /// Whether it has data to train on.
    pub trains: bool,
}

/// A node that connects. Who it is was proven by its certificate, its membership by the authority's signature.
pub struct NodeHello {
    /// Who.
    pub node: NodeId,
    /// The authority's statement, JSON.
    pub membership: Vec<u8>,
    /// The statement's labels.
    pub labels: BTreeMap<String, String>,
    /// Of its last connection.
    pub ticket: Option<Ticket>,
    /// What it has.
    pub profile: NodeProfile,
    /// What it runs.
    pub status: Option<NodeStatus>,
    /// Public key of the certificate that it shows.
    pub key: Vec<u8>,
}

/// Everything known about nodes.
pub struct Fleet {
    store: Arc<dyn Store>,
    writer: Writer,
    clock: Arc<dyn Clock>,
    life: Life,
    tickets: Tickets,
    nodes: Mutex<BTreeMap<NodeId, Node>>,
    changes: watch::Sender<u64>,
}

struct Node {
    /// The enrolment authority's word, as the node showed it.
    membership: Vec<u8>,
    labels: BTreeMap<String, String>,
    profile: NodeProfile,
    status: Option<NodeStatus>,
    /// The newest order ever written to it.
    assigned: u64,
    seen: Timestamp,
    line: Option<Line>,
}

struct Line {
    id: u64,
    /// Public key of the certificate that opened it.
    key: Vec<u8>,
    levels: watch::Sender<Levels>,
}

/// How the membership that a node shows stands to the one that it showed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The same identity, or nobody was here before.
    Same,
    /// The authority has since given the name to another identity: the node's state was lost, and it enrolled again.
    Anew,
    /// The identity that was displaced.
    Displaced,
}

impl Standing {
    fn of(shown: &[u8], known: &[u8]) -> Self {
        let read = |bytes| serde_json::from_slice::<SignedMembership>(bytes).ok().map(|membership| membership.statement);
        match (read(shown), read(known)) {
            (Some(shown), Some(known)) if shown.identity == known.identity => Self::Same,
            (Some(shown), Some(known)) if shown.issued > known.issued => Self::Anew,
            (Some(_), Some(_)) => Self::Displaced,
            _ => Self::Same,
        }
    }
}

impl Fleet {
    /// Reads who was ever here.
    pub async fn open(
        store: Arc<dyn Store>,
        writer: Writer,
        clock: Arc<dyn Clock>,
        life: Life,
        secrets: &mut dyn Secrets,
    ) -> Result<Arc<Self>, StoreError> {
        let mut key = vec![0; 32];
        secrets.fill(&mut key);
        let tickets = Tickets::new(&store.constant(TICKET_KEY, key).await?);
        let mut nodes = BTreeMap::new();
        for row in store.nodes().await? {
            nodes.insert(row.name.clone(), Node::stored(row)?);
        }
        for letter in store.letters_about(ASSIGNMENT).await? {
            if let Some(node) = nodes.get_mut(&letter.node) {
                node.assigned = version(&letter);
            }
        }
        Ok(Arc::new(Self { store, writer, clock, life, tickets, nodes: Mutex::new(nodes), changes: watch::Sender::new(0) }))
    }

    /// Runs `body` on the nodes. No body awaits, and none leaves them half changed.
    fn with<T>(&self, body: impl FnOnce(&mut BTreeMap<NodeId, Node>) -> T) -> T {
        body(&mut self.nodes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Changes whenever somebody comes, goes, or becomes somebody else.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Opens a node's line. The new ticket is durable before it is handed out; an older line of the node is closed.
    ///
    /// # Errors
    /// [`Misbehaviour::ClonedIdentity`] if the ticket is not one of the node's last two, or the identity was displaced.
    pub async fn connect(self: &Arc<Self>, hello: NodeHello, secrets: &mut dyn Secrets) -> Result<(Ticket, Orders), Fault> {
        let NodeHello { node: name, membership, labels, ticket, profile, status, key } = hello;
        let mut issued = ticket;
        self.update(&name, |row| {
            let expected = Expected { current: row.ticket, previous: row.previous_ticket };
            let next = match (Standing::of(&membership, &row.membership), ticket) {
                (Standing::Displaced, _) => return Err(Misbehaviour::ClonedIdentity { node: name.clone() }.into()),
                (Standing::Anew, None) => self.tickets.first(&name, expected, secrets),
                _ => self.tickets.next(&name, expected, ticket, secrets)?,
            };
            (row.ticket, row.previous_ticket) = (next.current, next.previous);
            issued = next.current;
            row.membership.clone_from(&membership);
            row.labels.clone_from(&labels);
            row.profile = json(&profile);
            if let Some(status) = &status {
                row.status = Some(json(status));
            }
            Ok(())
        })
        .await?;
        let issued = issued.ok_or_else(|| Misuse::State { what: "ticket".into(), why: "none was issued".into() })?;

        // The line is there before the store is read, so that no letter falls between the two.
        let (levels, receiver) = watch::channel(Levels::default());
        let now = self.clock.now();
        let line = self.with(|nodes| {
            let known = nodes.remove(&name);
            let id = known.as_ref().and_then(|node| node.line.as_ref()).map_or(0, |line| line.id) + 1;
            let assigned = known.as_ref().map_or(0, |node| node.assigned);
            let status = status.or_else(|| known.and_then(|node| node.status));
            let line = Some(Line { id, key, levels: levels.clone() });
            nodes.insert(name.clone(), Node { membership, labels, profile, status, assigned, seen: now, line });
            id
        });
        let orders = Orders {
            fleet: Arc::clone(self),
            life: self.life.clone(),
            node: name.clone(),
            line,
            levels: receiver,
            sent: BTreeMap::new(),
            over: false,
        };
        let letters = self.store.letters(&name).await?;
        levels.send_modify(|levels| letters.into_iter().for_each(|letter| levels.stored(letter)));
        self.changed();
        Ok((issued, orders))
    }

    /// Whether the node's line was opened under a certificate of this key. Another one may be a clone's, which
    /// [`Fleet::connect`] would refuse.
    pub fn is_connected(&self, name: &NodeId, key: &[u8]) -> bool {
        self.with(|nodes| nodes.get(name).and_then(|node| node.line.as_ref()).is_some_and(|line| line.key == key))
    }

    fn hung_up(&self, name: &NodeId, line: u64) {
        let now = self.clock.now();
        let was_ours = self.with(|nodes| {
            let Some(node) = nodes.get_mut(name) else { return false };
            let ours = node.line.as_ref().is_some_and(|open| open.id == line);
            if ours {
                node.line = None;
                node.seen = now;
            }
            ours
        });
        if was_ours {
            self.changed();
        }
    }

    /// Takes down what a node says about itself.
    ///
    /// It shows a ticket that it has stored. If that is the newest one, the one before is worth nothing from now on.
    pub async fn report(&self, name: &NodeId, ticket: Option<Ticket>, status: NodeStatus) -> Result<(), Fault> {
        let now = self.clock.now();
        let known = self.with(|nodes| {
            let node = nodes.get_mut(name)?;
            node.seen = now;
            Some(node.status.replace(status.clone()))
        });
        if known.is_none() {
            return Err(unknown(name));
        }
        self.update(name, |row| {
            if row.version == 0 {
                return Err(unknown(name));
            }
            row.status = Some(json(&status));
            if ticket == row.ticket {
                row.previous_ticket = row.ticket;
            }
            Ok(())
        })
        .await
    }

    /// Writes a node's row, on the newest one.
    async fn update(&self, name: &NodeId, mut change: impl FnMut(&mut NodeRow) -> Result<(), Fault>) -> Result<(), Fault> {
        for _ in 0..TRIES {
            let mut row = self.store.node(name).await?.unwrap_or_else(|| NodeRow {
                name: name.clone(),
                version: 0,
                membership: Vec::new(),
                labels: BTreeMap::new(),
                profile: Vec::new(),
                status: None,
                ticket: None,
                previous_ticket: None,
                seen: self.clock.now(),
            });
            change(&mut row)?;
            row.seen = self.clock.now();
            match self.writer.put_node(row).await {
                Err(StoreError::Conflict { .. }) => {}
                other => return Ok(other.map(drop)?),
            }
        }
        Err(Lack::Resource { what: "the node's row", why: "too many connections write it at once; try again".into() }.into())
    }

    /// Tells connected nodes what was committed for them.
    pub fn post(&self, letters: Vec<Letter>) {
        self.with(|nodes| {
            for letter in letters {
                let Some(node) = nodes.get_mut(&letter.node) else { continue };
                if letter.kind == LetterKind::Assignment {
                    node.assigned = node.assigned.max(version(&letter));
                }
                if let Some(line) = &node.line {
                    line.levels.send_modify(|levels| levels.post(letter));
                }
            }
        });
    }

    /// Connected nodes that have data to train on, in order.
    pub fn trainers(&self) -> Vec<NodeId> {
        self.with(|nodes| {
            nodes.iter().filter(|(_, node)| node.line.is_some() && node.profile.trains).map(|(name, _)| name.clone()).collect()
        })
    }

    /// All nodes, as a rollout sees them.
    pub fn views(&self) -> Vec<NodeView> {
        self.with(|nodes| nodes.iter().map(|(name, node)| node.view(name)).collect())
    }

    /// All nodes, for people.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.with(|nodes| nodes.iter().map(|(name, node)| node.info(name)).collect())
    }

    /// One node, for people.
    pub fn node(&self, name: &NodeId) -> Result<NodeInfo, Fault> {
        self.with(|nodes| nodes.get(name).map(|node| node.info(name))).ok_or_else(|| unknown(name))
    }

    /// The enrolment authority's word for a node, as it showed it last.
    pub fn membership(&self, name: &NodeId) -> Option<Vec<u8>> {
        self.with(|nodes| nodes.get(name).map(|node| node.membership.clone()))
    }

    /// One node's profile.
    pub fn profile(&self, name: &NodeId) -> Option<NodeProfile> {
        self.with(|nodes| nodes.get(name).map(|node| node.profile.clone()))
    }
}

impl Node {
    fn stored(row: NodeRow) -> Result<Self, StoreError> {
        let corrupt = |error: serde_json::Error| StoreError::Corrupt { what: format!("node {}", row.name), why: error.to_string() };
        let profile = serde_json::from_slice(&row.profile).map_err(corrupt)?;
        let status = row.status.as_deref().map(serde_json::from_slice).transpose().map_err(corrupt)?;
        Ok(Self { membership: row.membership, labels: row.labels, profile, status, assigned: 0, seen: row.seen, line: None })
    }

    fn ring(&self) -> Option<RingId> {
        self.labels.get(RING).and_then(|ring| ring.parse().ok())
    }

    fn assignment(&self) -> u64 {
        self.assigned.max(self.status.as_ref().map_or(0, |status| status.assignment))
    }

    fn view(&self, name: &NodeId) -> NodeView {
        NodeView {
            id: name.clone(),
            ring: self.ring(),
            class: self.profile.device_class.clone(),
            running: self.status.as_ref().and_then(|status| status.running),
            assignment: self.assignment(),
            seen: Some(self.seen),
        }
    }

    fn info(&self, name: &NodeId) -> NodeInfo {
        NodeInfo {
            node: name.clone(),
            ring: self.ring(),
            labels: self.labels.clone(),
            class: self.profile.device_class.clone(),
            connected: self.line.is_some(),
            seen: Some(self.seen),
            running: self.status.as_ref().and_then(|status| status.running),
            health: self.status.as_ref().map(|status| status.health.clone()),
            assignment: self.status.as_ref().map_or(0, |status| status.assignment),
        }
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("domain types have string keys and finite numbers")
}

/// The version in an order; 0 if it cannot be read, which a rollout then moves on from.
fn version(letter: &Letter) -> u64 {
    serde_json::from_slice::<Assignment>(&letter.body).map_or(0, |assignment| assignment.version)
}

fn unknown(name: &NodeId) -> Fault {
    Misuse::Unknown { what: format!("node {name}") }.into()
}
