//! What follows from a roster, a report or the clock.

use std::time::Duration;

use super::{
    Created, Effect, Event, Health, Input, NodeStatus, NodeView, Order, Rollout,
    state::{Member, MemberState, Outcome, Phase, RingState},
};
use crate::{
    fault::{Fault, Misuse},
    ids::{NodeId, ReleaseId},
    machine::{Cx, Decision, Machine},
    time::Timestamp,
};

type Next = Decision<Event, Effect>;

impl Machine for Rollout {
    type Input = Input;
    type Event = Event;
    type Effect = Effect;

    fn decide(&self, cx: &mut Cx<'_>, input: Input) -> Result<Next, Fault> {
        if self.superseded {
            // Someone else gives the orders; an answer of ours could only contradict them.
            return Ok(Next::nothing());
        }
        let mut draft = Draft::new(self, cx.now);
        match input {
            Input::Start => draft.start(),
            Input::Tick => draft.tick(),
            Input::Roster(views) => draft.roster(&views),
            Input::Report { node, status } => draft.report(&node, &status),
            Input::Abort { by } => draft.abort(by)?,
            Input::Supersede { by } => draft.supersede(by),
        }
        Ok(draft.next)
    }

    fn apply(self, event: &Event) -> Self {
        self.moved(event)
    }

    /// Gives every order again that has not been answered, and asks again for the roster that the next ring needs.
    fn recover(&self, cx: &mut Cx<'_>) -> Next {
        let mut draft = Draft::new(self, cx.now);
        if self.superseded {
            return draft.next;
        }
        match self.phase {
            Phase::Created => draft.start(),
            Phase::Waiting { .. } => draft.ask(Effect::Roster),
            Phase::Open { .. } | Phase::Reverting { .. } | Phase::Done(_) => {}
        }
        for (node, member) in &self.members {
            if matches!(member.state, MemberState::Pending | MemberState::Reverting) {
                draft.ask(Effect::Assign { node: node.clone(), assignment: self.assignment(member) });
            }
        }
        draft.next
    }

    fn deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Open { ring } if self.all_confirmed(ring) => self.soaked(ring),
            Phase::Open { ring } => {
                self.of_ring(ring).filter(|(_, member)| member.state == MemberState::Pending).map(|(_, member)| self.due(member)).min()
            }
            Phase::Reverting { ring } => self.overdue(ring),
            Phase::Created | Phase::Waiting { .. } | Phase::Done(_) => None,
        }
    }
}

impl Rollout {
    fn due(&self, member: &Member) -> Timestamp {
        member.ordered + self.created.policy.health_timeout
    }
    fn all_confirmed(&self, ring: usize) -> bool {
        self.of_ring(ring).all(|(_, member)| matches!(member.state, MemberState::Confirmed { .. }))
    }
    /// When the whole ring will have been healthy for the soak time.
    fn soaked(&self, ring: usize) -> Option<Timestamp> {
        let since = self
            .of_ring(ring)
            .filter_map(|(_, member)| if let MemberState::Confirmed { since } = member.state { Some(since) } else { None });
        since.max().map(|last| last + self.created.policy.soak)
    }
    /// When the last member of a ring that goes back should have arrived.
    fn overdue(&self, ring: usize) -> Option<Timestamp> {
        self.of_ring(ring).filter(|(_, member)| member.state == MemberState::Reverting).map(|(_, member)| self.due(member)).max()
    }
    /// Nodes without a known ring label belong to the last ring: they are asked to take the fewest risks.
    fn ring_of(&self, view: &NodeView) -> usize {
        let label = view.ring.as_ref();
        self.rings.iter().position(|ring| Some(&ring.id) == label).unwrap_or(self.rings.len() - 1)
    }
    fn fits(&self, view: &NodeView) -> bool {
        view.class == self.created.release.class
    }
}

/// A decision in the making: each fact is applied at once, so that the next one follows from it.
struct Draft {
    state: Rollout,
    now: Timestamp,
    next: Next,
}

impl Draft {
    fn new(state: &Rollout, now: Timestamp) -> Self {
        Self { state: state.clone(), now, next: Next::nothing() }
    }
    fn fact(&mut self, event: Event) {
        self.state = self.state.clone().apply(&event);
        self.next.events.push(event);
    }
    fn ask(&mut self, effect: Effect) {
        self.next.effects.push(effect);
    }
    fn assign(&mut self, node: &NodeId) {
        if let Some(member) = self.state.members.get(node) {
            let assignment = self.state.assignment(member);
            self.ask(Effect::Assign { node: node.clone(), assignment });
        }
    }
    fn policy(&self) -> (Duration, Duration) {
        let Created { policy, .. } = self.state.created();
        (policy.soak, policy.health_timeout)
    }

    fn start(&mut self) {
        if self.state.phase == Phase::Created {
            self.fact(Event::Started { at: self.now });
            self.ask(Effect::Roster);
        }
    }

    fn roster(&mut self, views: &[NodeView]) {
        self.catch_up(views);
        if let Phase::Waiting { next } = self.state.phase {
            self.open(next, views);
        }
    }

    /// Opens the first ring from `next` on that has nodes.
    fn open(&mut self, next: usize, views: &[NodeView]) {
        for index in next..self.state.rings.len() {
            let ring = self.state.rings[index].id.clone();
            let here: Vec<&NodeView> = views.iter().filter(|view| self.state.ring_of(view) == index).collect();
            let mut members: Vec<Order> = here
                .iter()
                .filter(|view| self.state.fits(view) && !self.state.members.contains_key(&view.id))
                .map(|view| Order { node: view.id.clone(), version: view.assignment.saturating_add(1) })
                .collect();
            members.sort_by(|a, b| a.node.cmp(&b.node));
            members.dedup_by(|a, b| a.node == b.node);
            if members.is_empty() {
                let class = &self.state.created.release.class;
                let why = format!("no-op: none of its {} nodes is of class {class}", here.len());
                self.fact(Event::RingSkipped { ring, why });
                continue;
            }
            let why = match index.checked_sub(1).map(|before| &self.state.rings[before]) {
                None => format!("the first ring, {} nodes", members.len()),
                Some(before) => format!(
                    "ring {} is {}; {} nodes",
                    before.id,
                    if before.state == RingState::Skipped { "empty" } else { "healthy" },
                    members.len()
                ),
            };
            let nodes: Vec<NodeId> = members.iter().map(|order| order.node.clone()).collect();
            self.fact(Event::RingOpened { ring, members, at: self.now, why });
            for node in &nodes {
                self.assign(node);
            }
            return;
        }
        self.complete();
    }

    fn complete(&mut self) {
        let nodes = self.state.confirmed();
        let why = if nodes == 0 {
            "no-op: no ring has a node for it".to_owned()
        } else {
            format!("every ring passed; {nodes} nodes are healthy on it")
        };
        self.fact(Event::Completed { nodes, why });
    }

    /// Nodes of a ring that has passed, which were not there then. Without a single confirmed node nothing is known about
    /// the release, and nobody catches up; nor does anybody after a halt.
    fn catch_up(&mut self, views: &[NodeView]) {
        let spreading = matches!(self.state.phase, Phase::Waiting { .. } | Phase::Open { .. } | Phase::Done(Outcome::Completed { .. }));
        if !spreading || self.state.confirmed() == 0 {
            return;
        }
        for view in views {
            let ring = &self.state.rings[self.state.ring_of(view)];
            let known = self.state.members.contains_key(&view.id);
            let running = view.running == Some(self.state.created.release.bundle);
            if known || running || !self.state.fits(view) || !matches!(ring.state, RingState::Passed | RingState::Skipped) {
                continue;
            }
            let order = Order { node: view.id.clone(), version: view.assignment.saturating_add(1) };
            let why = format!("ring {} had passed without it", ring.id);
            self.fact(Event::CaughtUp { order, ring: ring.id.clone(), at: self.now, why });
            self.assign(&view.id);
        }
    }

    fn report(&mut self, node: &NodeId, status: &NodeStatus) {
        let Some(member) = self.state.members.get(node).cloned() else { return };
        if matches!(self.state.phase, Phase::Done(Outcome::Aborted { .. })) || status.assignment < member.version {
            return;
        }
        if status.assignment > member.version {
            let order = Order { node: node.clone(), version: status.assignment.saturating_add(1) };
            let why = format!("it has seen assignment {}, we knew of {}: our records are older than it", status.assignment, member.version);
            self.fact(Event::Reordered { order, at: self.now, why });
            self.assign(node);
            return;
        }
        match &member.state {
            MemberState::Reverting if status.health == Health::Healthy && status.running == self.state.previous() => {
                self.fact(Event::NodeReverted { node: node.clone() });
                self.converge();
            }
            MemberState::Reverting | MemberState::Reverted => {}
            MemberState::Pending | MemberState::Confirmed { .. } | MemberState::Failed { .. } => self.judge(node, &member, status),
        }
    }

    /// A report about the release itself. Health counts only together with the digest that is running.
    fn judge(&mut self, node: &NodeId, member: &Member, status: &NodeStatus) {
        let bundle = self.state.created.release.bundle;
        let verdict = match &status.health {
            Health::Working { .. } => return,
            Health::Healthy if status.running == Some(bundle) => Ok(()),
            Health::Healthy => Err(format!(
                "it says healthy, but runs {} instead of {bundle}",
                status.running.map_or("nothing".into(), |other| other.to_string())
            )),
            Health::Unhealthy { why } => Err(why.clone()),
            Health::Refused { why } => Err(format!("refused: {why}")),
        };
        match (verdict, &member.state) {
            (Ok(()), MemberState::Confirmed { .. }) | (Err(_), MemberState::Failed { .. }) => {}
            (Ok(()), _) => {
                self.fact(Event::NodeConfirmed { node: node.clone(), at: self.now });
                self.advance();
            }
            (Err(why), _) => {
                self.fact(Event::NodeFailed { node: node.clone(), why: why.clone() });
                self.halt_if_open(member.ring, &format!("node {node}: {why}"));
            }
        }
    }

    fn tick(&mut self) {
        match self.state.phase {
            Phase::Open { ring } => {
                let (_, timeout) = self.policy();
                let silent: Vec<NodeId> = self
                    .state
                    .of_ring(ring)
                    .filter(|(_, member)| member.state == MemberState::Pending && self.now >= self.state.due(member))
                    .map(|(node, _)| node.clone())
                    .collect();
                let Some(first) = silent.first().cloned() else { return self.advance() };
                let why = format!("no confirmation within {}", humantime::format_duration(timeout));
                for node in &silent {
                    self.fact(Event::NodeFailed { node: node.clone(), why: why.clone() });
                }
                self.halt_if_open(ring, &format!("node {first}: {why}"));
            }
            Phase::Reverting { ring } => {
                if self.state.overdue(ring).is_some_and(|due| self.now >= due) {
                    let missing = self.state.of_ring(ring).filter(|(_, member)| member.state == MemberState::Reverting);
                    let missing = missing.map(|(node, _)| node.clone()).collect();
                    self.fact(Event::HaltedNotConverged { ring: self.state.rings[ring].id.clone(), missing });
                }
            }
            Phase::Created | Phase::Waiting { .. } | Phase::Done(_) => {}
        }
    }

    /// Lets the open ring pass when all its members have soaked.
    fn advance(&mut self) {
        let Phase::Open { ring } = self.state.phase else { return };
        let soaked = self.state.soaked(ring).is_some_and(|due| self.now >= due);
        if !self.state.all_confirmed(ring) || !soaked {
            return;
        }
        let (soak, _) = self.policy();
        let nodes = self.state.of_ring(ring).count();
        let why = format!("all {nodes} nodes were healthy on the running digest for {}", humantime::format_duration(soak));
        self.fact(Event::RingPassed { ring: self.state.rings[ring].id.clone(), why });
        if ring + 1 == self.state.rings.len() {
            self.complete();
        } else {
            self.ask(Effect::Roster);
        }
    }

    /// Only the open ring goes back; a failure elsewhere is on the record, and its node has fallen back by itself.
    fn halt_if_open(&mut self, ring: usize, why: &str) {
        if self.state.phase != (Phase::Open { ring }) {
            return;
        }
        let reverts: Vec<Order> = self
            .state
            .of_ring(ring)
            .map(|(node, member)| Order { node: node.clone(), version: member.version.saturating_add(1) })
            .collect();
        let nodes: Vec<NodeId> = reverts.iter().map(|order| order.node.clone()).collect();
        self.fact(Event::RingHalted { ring: self.state.rings[ring].id.clone(), reverts, at: self.now, why: why.to_owned() });
        for node in &nodes {
            self.assign(node);
        }
    }

    fn converge(&mut self) {
        let Phase::Reverting { ring } = self.state.phase else { return };
        if self.state.of_ring(ring).all(|(_, member)| member.state == MemberState::Reverted) {
            self.fact(Event::RolledBack { ring: self.state.rings[ring].id.clone() });
        }
    }

    fn abort(&mut self, by: String) -> Result<(), Fault> {
        match self.state.phase {
            Phase::Created | Phase::Waiting { .. } => self.fact(Event::Aborted { by }),
            Phase::Open { ring } => self.halt_if_open(ring, &format!("stopped by {by}")),
            Phase::Reverting { .. } => {}
            Phase::Done(_) => {
                let what = format!("the rollout of {}", self.state.created.release.release);
                return Err(Misuse::State { what, why: "it is over; start another one to go elsewhere".into() }.into());
            }
        }
        Ok(())
    }

    fn supersede(&mut self, by: ReleaseId) {
        self.fact(Event::Superseded { by });
    }
}
