//! What tests of several modules need.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sapwood_protocol::{Secrets, Timestamp};

use crate::{
    clock::TokioClock,
    drive::{Context, Life},
    fleet::{Fleet, NodeProfile},
    store::{Store, Writer},
};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

/// Never the same bytes twice, and no secret to anybody.
struct Counter;

impl Secrets for Counter {
    fn fill(&mut self, bytes: &mut [u8]) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        for (byte, value) in bytes.iter_mut().zip(number.into_iter().cycle()) {
            *byte = value;
        }
    }
}

pub(crate) fn secrets() -> Box<dyn Secrets> {
    Box::new(Counter)
}

/// A process on `store`, as far as drivers know.
pub(crate) async fn context(store: Arc<dyn Store>) -> Context {
    let (writer, _) = Writer::start(Arc::clone(&store));
    let clock = Arc::new(TokioClock::showing(NOW));
    let life = Life::default();
    let fleet = Fleet::open(Arc::clone(&store), writer.clone(), clock.clone(), life.clone(), &mut Counter).await.unwrap();
    Context { store, writer, clock, life, fleet, holder: "here".into(), secrets }
}

pub(crate) fn profile() -> NodeProfile {
    NodeProfile {
        arch: "x86_64".into(),
        cores: 2,
        memory_bytes: 1 << 30,
        device_class: "x86_64".parse().unwrap(),
        runtime: String::new(),
        accelerators: vec!["cpu".into()],
        os: "linux".into(),
        agent_version: "0".into(),
        serving_address: String::new(),
        trains: true,
    }
}
