//! Tickets: how two lives of one node's state are told apart.
//!
//! At each connection a node shows the ticket of its last one and gets the next. A state that was copied, or restored from a
//! backup, shows a ticket that somebody else has moved on from. The node may not have received the newest ticket, so the
//! one before is good, too, until the node has used the newest.
//!
//! A ticket is a counter (48 bits), noise (32 bits) and a code (48 bits) under the coordinator's key. The code lets a
//! coordinator that was itself restored from a backup see that a ticket from its future is one of its own.

use ring::hmac;
use sapwood_protocol::{Fault, NodeId, Secrets, Ticket, fault::Misbehaviour};

const COUNTER: usize = 6;
const NOISE: usize = 4;
const SEALED: usize = COUNTER + NOISE;

/// What a node must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// The newest that it was given.
    pub(super) current: Option<Ticket>,
    /// What it may show as well. The same as the newest, once it has used that.
    pub(super) previous: Option<Ticket>,
}

/// Makes and recognises tickets.
pub(super) struct Tickets(hmac::Key);

impl Tickets {
    pub(super) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// What to expect of `node` from now on, if what it shows is good.
    ///
    /// # Errors
    /// [`Misbehaviour::ClonedIdentity`].
    pub(super) fn next(
        &self,
        node: &NodeId,
        expected: Expected,
        shown: Option<Ticket>,
        secrets: &mut dyn Secrets,
    ) -> Result<Expected, Fault> {
        let known = shown == expected.current || shown == expected.previous;
        let count = |ticket: Option<Ticket>| ticket.map_or(0, |ticket| counter(&ticket));
        let newer = shown.is_some_and(|ticket| self.is_ours(node, &ticket)) && count(shown) > count(expected.current);
        if !known && !newer {
            return Err(Misbehaviour::ClonedIdentity { node: node.clone() }.into());
        }
        if newer {
            tracing::warn!(%node, "the node remembers more than this coordinator, which was restored from a backup");
        }
        let count = count(shown).max(count(expected.current)) + 1;
        Ok(Expected { current: Some(self.issue(node, count, secrets)), previous: shown })
    }

    /// What to expect of a `node` that begins without a state. Higher than all before, which are worth nothing from now on.
    pub(super) fn first(&self, node: &NodeId, before: Expected, secrets: &mut dyn Secrets) -> Expected {
        let count = before.current.map_or(0, |ticket| counter(&ticket)) + 1;
        Expected { current: Some(self.issue(node, count, secrets)), previous: None }
    }

    fn issue(&self, node: &NodeId, count: u64, secrets: &mut dyn Secrets) -> Ticket {
        let mut bytes = [0; 16];
        bytes[..COUNTER].copy_from_slice(&count.to_be_bytes()[8 - COUNTER..]);
        secrets.fill(&mut bytes[COUNTER..SEALED]);
        let code = self.code(node, &bytes[..SEALED]);
        bytes[SEALED..].copy_from_slice(&code.as_ref()[..16 - SEALED]);
        Ticket::new(bytes)
    }

    fn is_ours(&self, node: &NodeId, ticket: &Ticket) -> bool {
        let (sealed, code) = ticket.as_bytes().split_at(SEALED);
        let expected = self.code(node, sealed);
        // Constant time: the codes' difference is gathered before it is looked at.
        code.iter().zip(expected.as_ref()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }

    fn code(&self, node: &NodeId, sealed: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(sealed);
        context.update(node.as_str().as_bytes());
        context.sign()
    }
}

fn counter(ticket: &Ticket) -> u64 {
    let mut bytes = [0; 8];
    bytes[8 - COUNTER..].copy_from_slice(&ticket.as_bytes()[..COUNTER]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl Secrets for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            self.0 += 1;
            bytes.fill(self.0);
        }
    }

    fn node() -> NodeId {
        "n1".parse().unwrap()
    }

    fn next(expected: Expected, shown: Option<Ticket>) -> Result<Expected, Fault> {
        Tickets::new(&[1; 32]).next(
            &node(),
            expected,
            shown,
            &mut Counting(counter(&expected.current.unwrap_or(Ticket::new([0; 16]))) as u8),
        )
    }

    const NEW: Expected = Expected { current: None, previous: None };

    #[test]
    fn a_node_moves_from_ticket_to_ticket() {
        let first = next(NEW, None).unwrap();
        let second = next(first, first.current).unwrap();
        assert_ne!(first.current, second.current);
        assert!(next(second, second.current).is_ok());
    }

    #[test]
    fn a_lost_welcome_does_no_harm() {
        let first = next(NEW, None).unwrap();
        assert!(next(first, None).is_ok(), "the first was lost");
        let second = next(first, first.current).unwrap();
        assert!(next(second, first.current).is_ok(), "the second was lost");
    }

    /// "A restored old backup of either side; a cloned identity."
    #[test]
    fn a_clone_and_a_restored_node_are_refused() {
        let first = next(NEW, None).unwrap();
        let second = next(first, first.current).unwrap();
        let used = Expected { previous: second.current, ..second };
        for shown in [first.current, None, Some(Ticket::new([9; 16]))] {
            assert!(matches!(next(used, shown), Err(Fault::PeerMisbehaved(Misbehaviour::ClonedIdentity { .. }))), "{shown:?}");
        }
        let third = next(second, second.current).unwrap();
        assert!(next(third, first.current).is_err());
    }

    #[test]
    fn a_restored_coordinator_knows_its_own_tickets() {
        let first = next(NEW, None).unwrap();
        let second = next(first, first.current).unwrap();
        let third = next(second, second.current).unwrap();
        let after = next(first, third.current).unwrap();
        assert!(counter(&after.current.unwrap()) > counter(&third.current.unwrap()));
        assert!(next(NEW, third.current).is_ok());
        let foreign = Tickets::new(&[2; 32]).next(&node(), third, third.current, &mut Counting(0)).unwrap();
        assert!(next(first, foreign.current).is_err());
    }
}
