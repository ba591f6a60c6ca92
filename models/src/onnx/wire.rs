//! A walk over the protobuf bytes that allocates nothing.
//!
//! A two-byte message on the wire becomes hundreds of bytes in memory, and graphs nest in
//! attributes, so counts and depth are bounded here, before prost builds the message.
//! Fields of the top level must be those of `ModelProto`: bytes appended to a file would
//! otherwise pass as unknown fields and be dropped in silence.

use super::Limits;
use crate::ModelError;

/// The messages whose nesting matters; everything else is `Leaf`.
#[derive(Clone, Copy, PartialEq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Function,
    Training,
    Leaf,
}

/// Fields of `ModelProto`, with those that may stand only once.
const TOP_LEVEL: [(u64, bool); 11] =
    [(1, true), (2, true), (3, true), (4, true), (5, true), (6, true), (7, true), (8, false), (14, false), (20, false), (25, false)];
/// `configuration`, added with IR version 11.
const CONFIGURATION: u64 = 26;

struct Scan<'l> {
    limits: &'l Limits,
    messages: usize,
    nodes: usize,
    initializers: usize,
}

/// Checks the structure of an encoded `ModelProto` against the limits.
pub(super) fn scan(bytes: &[u8], limits: &Limits) -> Result<(), ModelError> {
    let mut scan = Scan { limits, messages: 0, nodes: 0, initializers: 0 };
    scan.message(bytes, Message::Model, 0)
}

impl Scan<'_> {
    fn message(&mut self, mut bytes: &[u8], kind: Message, depth: usize) -> Result<(), ModelError> {
        let depth = depth + usize::from(kind == Message::Graph);
        if depth > self.limits.depth {
            return Err(ModelError::TooDeep { limit: self.limits.depth });
        }
        let mut attributes = 0;
        let mut seen = 0u64;
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let (field, wire) = (tag >> 3, tag & 7);
            if field == 0 {
                return Err(malformed("field number 0"));
            }
            if kind == Message::Model {
                top_level(field, &mut seen)?;
            }
            let payload = payload(&mut bytes, wire)?;
            let Some(payload) = payload else { continue };
            let Some(inner) = child(kind, field) else { continue };
            self.messages += 1;
            within("messages", self.messages, self.limits.messages)?;
            match (kind, field) {
                (Message::Graph, 1) | (Message::Function, 7) => {
                    self.nodes += 1;
                    within("nodes", self.nodes, self.limits.nodes)?;
                }
                (Message::Graph, 5 | 15) => {
                    self.initializers += 1;
                    within("initializers", self.initializers, self.limits.initializers)?;
                }
                (Message::Node, 5) => {
                    attributes += 1;
                    within("attributes in one node", attributes, self.limits.attributes)?;
                }
                _ => {}
            }
            if inner != Message::Leaf {
                self.message(payload, inner, depth)?;
            }
        }
        Ok(())
    }
}

/// The message that a length-delimited field holds, or `None` for strings and packed values.
fn child(kind: Message, field: u64) -> Option<Message> {
    match (kind, field) {
        (Message::Model, 7) => Some(Message::Graph),
        (Message::Model, 20) => Some(Message::Training),
        (Message::Model, 25) => Some(Message::Function),
        (Message::Model, 8 | 14 | 26) => Some(Message::Leaf),
        (Message::Training, 1 | 2) => Some(Message::Graph),
        (Message::Training, 3 | 4) => Some(Message::Leaf),
        (Message::Graph, 1) | (Message::Function, 7) => Some(Message::Node),
        (Message::Graph, 5 | 11 | 12 | 13 | 14 | 15 | 16) => Some(Message::Leaf),
        (Message::Function, 9 | 12 | 14) => Some(Message::Leaf),
        (Message::Function, 11) | (Message::Node, 5) => Some(Message::Attribute),
        (Message::Node, 9 | 10) => Some(Message::Leaf),
        (Message::Attribute, 6 | 11) => Some(Message::Graph),
        (Message::Attribute, 5 | 10 | 14 | 15 | 22 | 23) => Some(Message::Leaf),
        _ => None,
    }
}

fn top_level(field: u64, seen: &mut u64) -> Result<(), ModelError> {
    let once = match TOP_LEVEL.iter().find(|(known, _)| *known == field) {
        Some((_, once)) => *once,
        None if field == CONFIGURATION => false,
        None => return Err(malformed(&format!("field {field} is not part of a model"))),
    };
    if once && *seen & (1 << field) != 0 {
        return Err(malformed(&format!("field {field} of the model stands twice")));
    }
    if once {
        *seen |= 1 << field;
    }
    Ok(())
}

/// Skips one value; returns the bytes of a length-delimited one.
fn payload<'b>(bytes: &mut &'b [u8], wire: u64) -> Result<Option<&'b [u8]>, ModelError> {
    match wire {
        0 => varint(bytes).map(|_| None),
        1 => take(bytes, 8).map(|_| None),
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| malformed("a huge length"))?;
            take(bytes, length).map(Some)
        }
        5 => take(bytes, 4).map(|_| None),
        other => Err(malformed(&format!("wire type {other}"))),
    }
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Result<&'b [u8], ModelError> {
    let (head, tail) = bytes.split_at_checked(length).ok_or_else(|| malformed("it ends inside a field"))?;
    *bytes = tail;
    Ok(head)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ModelError> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err(malformed("it ends inside a number"))
}

fn within(what: &'static str, count: usize, limit: usize) -> Result<(), ModelError> {
    if count > limit {
        return Err(ModelError::TooMany { what, count, limit });
    }
    Ok(())
}

fn malformed(reason: &str) -> ModelError {
    ModelError::Malformed { reason: reason.to_owned() }
}
