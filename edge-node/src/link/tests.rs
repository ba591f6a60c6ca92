//! The line against a real server on loopback that breaks off.

use std::sync::Arc;

use rand::SeedableRng;
use sapwood_protocol::{
    Digest, Fault, SessionId, Ticket,
    fault::Misbehaviour,
    rollout::{Health, NodeStatus},
    round::{Decline, Receipt},
};
use tokio::sync::{mpsc, watch};
use tonic::{Code, Status};

use super::*;
use crate::{
    identity,
    store::Store,
    testing::{Ca, World, node},
};

async fn world() -> (Arc<World>, String) {
    let world = World::new();
    let address = world.listen(false).await;
    let address = format!("localhost:{}", address.port());
    (world, address)
}

/// A link on a channel of its own; tonic connects it again after each cut.
async fn link(world: &World, address: &str) -> (watch::Sender<Option<Client>>, Link) {
    let channel = channel(address, world.ca.pem().as_bytes(), Some(world.ca.client())).await.unwrap();
    let (current, link) = Link::new();
    current.send_replace(Some(bounded(channel)));
    (current, link)
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(bytes).collect()
}

#[tokio::test]
async fn the_right_authority_is_trusted_and_another_is_refused() {
    let (world, address) = world().await;
    assert!(channel(&address, world.ca.pem().as_bytes(), None).await.is_ok());
    let error = channel(&address, Ca::new().pem().as_bytes(), None).await.unwrap_err();
    assert!(matches!(&error, LinkError::Handshake { .. }), "{error}");
    assert!(error.is_permanent() && error.to_string().contains("trust file"), "{error}");
}

#[tokio::test]
async fn another_name_than_the_certificates_is_refused() {
    let (world, address) = world().await;
    let by_number = address.replace("localhost", "127.0.0.1");
    let error = channel(&by_number, world.ca.pem().as_bytes(), None).await.unwrap_err();
    assert!(matches!(error, LinkError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_is_not_permanent_and_no_address_is() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let pem = Ca::new().pem();
    let error = channel(&address, pem.as_bytes(), None).await.unwrap_err();
    assert!(matches!(&error, LinkError::Unreachable { .. }) && !error.is_permanent(), "{error}");
    for bad in ["", "http://localhost:1", "https://", "https://a:1/path", "a b"] {
        assert!(matches!(channel(bad, pem.as_bytes(), None).await, Err(LinkError::Address { .. })), "{bad:?}");
    }
    assert!(matches!(channel(&address, b"", None).await, Err(LinkError::Authority { .. })));
    assert!(Credentials::from_pem(b"", b"").is_err());
}

/// A stranger's certificate passes the client's side of the handshake; the refusal comes with the first answer.
#[tokio::test]
async fn a_refused_client_certificate_is_permanent() {
    let world = World::new();
    let address = format!("localhost:{}", world.listen(true).await.port());
    let stranger = Ca::new().client();
    let channel = channel(&address, world.ca.pem().as_bytes(), Some(stranger)).await;
    let refused = match channel {
        Err(error) => error.is_permanent(),
        Ok(channel) => {
            let status = bounded(channel).report(v1::StatusReport::default()).await.unwrap_err();
            line::is_refusal(&status)
        }
    };
    assert!(refused);
}

#[tokio::test]
async fn a_fetch_goes_on_where_it_was_cut() {
    let (world, address) = world().await;
    let (_current, link) = link(&world, &address).await;
    let bytes = noise(5 * sapwood_proto::CHUNK + 4);
    let digest = world.put(bytes.clone());
    world.script(|script| script.cuts.extend([2, 1]));
    let floats = link.fetch_floats(digest, bytes.len() / 4).await.unwrap();
    assert!(floats.iter().zip(bytes.as_chunks::<4>().0).all(|(f, b)| f.to_bits() == u32::from_le_bytes(*b)));
    let from = world.script(|script| script.fetched_from.clone());
    assert!(from.len() == 3 && from[0] == 0 && from.is_sorted(), "{from:?}");
}

#[tokio::test]
async fn a_file_goes_on_in_the_next_process_and_appears_whole() {
    let (world, address) = world().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let bytes = noise(3 * sapwood_proto::CHUNK);
    let digest = world.put(bytes.clone());
    let size = Size::Exactly(bytes.len() as u64);
    std::fs::write(dir.path().join("bundle.part"), &bytes[..1000]).unwrap();

    let (_current, link) = link(&world, &address).await;
    assert_eq!(link.fetch_file(digest, size, &path, None).await.unwrap(), bytes.len() as u64);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(world.script(|script| script.fetched_from.clone()), [1000]);
    assert!(!dir.path().join("bundle.part").exists());

    // What an earlier process left may be rubbish: then it starts over.
    std::fs::write(dir.path().join("bundle.part"), [7; 1000]).unwrap();
    link.fetch_file(digest, size, &path, None).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(world.script(|script| script.fetched_from.clone()), [1000, 1000, 0]);
    // It may even be longer than the object.
    std::fs::write(dir.path().join("bundle.part"), vec![7; bytes.len() + 1]).unwrap();
    link.fetch_file(digest, size, &path, None).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn forged_bytes_and_wrong_sizes_are_the_peers_fault() {
    let (world, address) = world().await;
    let (_current, link) = link(&world, &address).await;
    let digest = world.put(&b"genuine"[..]);
    world.script(|script| script.forged = Some((&b"GENUINE"[..]).into()));
    let error = link.fetch_bytes(digest, Size::AtMost(100)).await.unwrap_err();
    assert!(matches!(error, CallError::Fault(Fault::PeerMisbehaved(Misbehaviour::Digest { .. }))), "{error}");
    for size in [Size::AtMost(6), Size::Exactly(8)] {
        let error = link.fetch_bytes(digest, size).await.unwrap_err();
        assert!(matches!(error, CallError::Fault(Fault::PeerMisbehaved(Misbehaviour::Malformed { .. }))), "{error}");
    }
    let error = link.fetch_bytes(Digest::of(b"nothing"), Size::AtMost(6)).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { code: Code::NotFound, .. }), "{error}");
    assert_eq!(link.fetch_bytes(digest, Size::AtMost(7)).await.unwrap(), b"genuine");
}

/// A full disk is said by name; the part stays for later.
#[tokio::test]
async fn a_disk_that_refuses_is_named() {
    let (world, address) = world().await;
    let (_current, link) = link(&world, &address).await;
    let digest = world.put(noise(1000));
    let nowhere = std::path::Path::new("/dev/null/bundle");
    let error = link.fetch_file(digest, Size::AtMost(1000), nowhere, None).await.unwrap_err();
    assert!(matches!(error, CallError::Disk { .. }), "{error}");
    // Every write to this device fails with ENOSPC.
    if std::path::Path::new("/dev/full").exists() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("bundle.part")).unwrap();
        // The device reads as endless zeros, so only the sink is tried here.
        let error = fetch::write_to(&dir.path().join("bundle.part"), b"bytes").await.unwrap_err();
        let CallError::Disk { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_cut_with_the_same_bytes() {
    let (world, address) = world().await;
    let (_current, link) = link(&world, &address).await;
    let bytes = noise(6 * sapwood_proto::CHUNK + 5);
    let digest = Digest::of(&bytes);
    world.script(|script| script.cuts.push_back(2));
    let submission = Submission { run: "r1".parse().unwrap(), session: SessionId::new([1; 32]), digest, bytes: bytes.clone().into() };
    assert_eq!(link.submit(&submission).await.unwrap(), Receipt::Accepted);
    let (from, uploaded) = world.script(|script| (script.uploaded_from.clone(), script.uploads[&digest].clone()));
    assert_eq!(uploaded, bytes);
    assert!(from.len() == 2 && from[0] == 0 && from[1] >= sapwood_proto::CHUNK as u64, "{from:?}");
    // Nothing is left to send: only the receipt is asked for again.
    assert_eq!(link.submit(&submission).await.unwrap(), Receipt::Accepted);
    assert_eq!(world.script(|script| script.uploaded_from[2]), bytes.len() as u64);
}

#[tokio::test]
async fn a_decline_carries_its_reason_and_a_closed_line_ends_calls() {
    let (world, address) = world().await;
    let (current, link) = link(&world, &address).await;
    let reason = Decline::BadData { why: "row 3 column 2 is NaN".into() };
    link.decline(&"r1".parse().unwrap(), SessionId::new([1; 32]), &reason).await.unwrap();
    let sent = world.script(|script| script.declined.remove(0));
    assert_eq!(convert::from_json::<Decline>("decline", &sent.reason).unwrap(), reason);
    current.send_replace(None);
    drop(current);
    let error = link.fetch_bytes(Digest::of(b""), Size::AtMost(1)).await.unwrap_err();
    assert!(matches!(error, CallError::Closed), "{error}");
}

/// The ticket of a connection is on disk before its first order is followed, and is shown at the next; orders and reports
/// go both ways; a broken line comes back by itself.
#[tokio::test]
async fn the_line_keeps_tickets_hands_out_orders_and_comes_back() {
    let (world, address) = world().await;
    let dir = tempfile::tempdir().unwrap();
    let trust = Arc::new(world.trust());
    let identity::Found::Enrolling(keys) = identity::open(&dir.path().join("identity"), &node(), &trust).unwrap() else { panic!() };
    let enrolled = identity::enroll(keys, &node(), &address, &trust, Some(world.token.clone())).await.unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let healthy = NodeStatus { assignment: 0, running: None, health: Health::Healthy };
    let (report, status) = watch::channel(healthy.clone());
    let (rounds, mut orders) = mpsc::channel(8);
    let (assignments, mut assigned) = watch::channel(None);
    let (current, link) = Link::new();
    let line = Line {
        address,
        trust,
        node: node(),
        enrolled: Arc::new(enrolled),
        store: store.clone(),
        profile: v1::Profile::default(),
        status,
        rounds,
        assignments,
        current,
        link: link.clone(),
    };
    let line = tokio::spawn(line.run(ChaCha8Rng::from_seed([1; 32])));

    assert!(matches!(orders.recv().await, Some(RoundOrder::Connected)));
    assert_eq!(store.ticket().await.unwrap(), Some(Ticket::new([1; 16])));
    let send = async |kind| {
        let line = world.script(|script| script.line.clone()).unwrap();
        line.send(Ok(v1::Instruction { kind: Some(kind) })).await.unwrap();
    };
    // An order that cannot be read is left out; the next one is followed.
    send(v1::instruction::Kind::Task((&b"{"[..]).into())).await;
    let withdrawal = sapwood_protocol::round::Withdrawal { run: "r1".parse().unwrap(), session: SessionId::new([9; 32]), keep: true };
    send(v1::instruction::Kind::Withdraw(convert::to_json(&withdrawal))).await;
    assert!(matches!(orders.recv().await, Some(RoundOrder::Withdraw(w)) if w == withdrawal));
    let assignment = Assignment { version: 3, release: None };
    send(v1::instruction::Kind::Assignment(convert::to_json(&assignment))).await;
    assigned.changed().await.unwrap();
    assert_eq!(*assigned.borrow(), Some(assignment));

    // The coordinator goes away; the status changes meanwhile; the next Hello carries both ticket and status.
    let news = NodeStatus { assignment: 3, ..healthy };
    report.send_replace(news.clone());
    send(v1::instruction::Kind::Goodbye(v1::Goodbye { why: "restart".into() })).await;
    assert!(matches!(orders.recv().await, Some(RoundOrder::Connected)));
    let (first, second) = world.script(|script| (script.hellos[0].clone(), script.hellos[1].clone()));
    assert!(first.ticket.is_empty());
    assert_eq!(&second.ticket[..], [1; 16]);
    assert_eq!(convert::from_json::<NodeStatus>("status", &second.status).unwrap(), news);
    assert_eq!(store.ticket().await.unwrap(), Some(Ticket::new([2; 16])));
    line.abort();
}

#[test]
fn refusals_are_told_from_hiccups() {
    for code in [Code::PermissionDenied, Code::FailedPrecondition, Code::Unauthenticated] {
        assert!(line::is_refusal(&Status::new(code, "no")), "{code:?}");
    }
    for code in [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled, Code::ResourceExhausted] {
        assert!(!line::is_refusal(&Status::new(code, "not now")), "{code:?}");
    }
}
