//! Updates as no honest node sends them, from enrolled nodes over the wire.

use sapwood_models::zoo;
use sapwood_privacy::Contribution;
use sapwood_proto::v1::submit_request::Part;
use sapwood_protocol::{
    NodeId, SessionId,
    round::{Receipt, Task, Terms},
    run::RunState,
};

use super::*;
use crate::app::Submission;

const RUN: &str = r#"
    name = "toy"
    [model]
    file = "mlp.onnx"
    [train]
    rounds = 1
    [cohort]
    size = 2
    minimum = 2
    over_selection = 0.0
    [secure_aggregation]
    mode = "off"
    [privacy]
    unit = "none"
    clip = 5.0
    [release]
    auto = false
"#;

type Line = tonic::Streaming<v1::Instruction>;

/// The terms of attempt `n`, once they are told.
async fn attempt(line: &mut Line, n: u32) -> Terms {
    loop {
        if let Some(Kind::Task(json)) = line.message().await.unwrap().unwrap().kind {
            let task: Task = serde_json::from_slice(&json).unwrap();
            if task.terms.attempt == n {
                return task.terms;
            }
        }
    }
}

fn update(node: &str, terms: &Terms) -> Vec<u8> {
    let seed = terms.training_seed(&node.parse::<NodeId>().unwrap());
    let change: Vec<f32> = (0..terms.dimension()).map(|i| ((seed.rotate_left(i as u32) % 1000) as f32 - 500.0) / 1e4).collect();
    let contribution = Contribution { examples: 1 + seed % 50, correct: Some(1), loss: 0.5 };
    terms.encoding.encoding().unwrap().encode(&change, &contribution).unwrap().bytes
}

/// Announces `total` bytes and sends `bytes`.
async fn send(client: &mut NodeClient<Channel>, terms: &Terms, total: usize, bytes: &[u8]) -> Result<Receipt, Status> {
    let (session, digest) = (terms.session.as_bytes().to_vec().into(), Digest::of(bytes).as_bytes().to_vec().into());
    let key = Some(v1::UploadKey { session, digest });
    let header = v1::SubmitHeader { run: terms.run.to_string(), key, total: total as u64, offset: 0 };
    let parts = [Part::Header(header), Part::Data(bytes.to_vec().into())].map(|part| v1::SubmitRequest { part: Some(part) });
    let receipt = client.submit(tokio_stream::iter(parts)).await?.into_inner();
    Ok(serde_json::from_slice(&receipt.outcome).unwrap())
}

/// "Update of the wrong length, twice, late, from a node outside the cohort, with non-finite values": each is refused by name,
/// and the attempt goes on to finite parameters.
#[tokio::test]
async fn an_update_that_no_honest_node_sends_is_refused_and_the_run_goes_on() {
    let world = World::new(true).await;
    let (first, second, other) = (world.enroll("store-1").await, world.enroll("store-2").await, world.enroll("store-3").await);
    let (mut node_1, mut node_2, mut stranger) = (world.node(&first).await, world.node(&second).await, world.node(&other).await);
    let (mut line_1, _line_2) = (connect(&mut node_1, &first).await, connect(&mut node_2, &second).await);
    let model = world.state.objects().put(&zoo::mlp(4, &[3], 2, 1).encode()).unwrap();
    let submission = Submission { spec: RUN.into(), objects: [("mlp.onnx".into(), model)].into(), token: String::new() };
    let run = world.state.submit_run(submission).await.unwrap().run;
    let terms = attempt(&mut line_1, 1).await;
    // Too late for this cohort.
    let _line_3 = connect(&mut stranger, &other).await;

    let good = update("store-1", &terms);
    let refusal = |verdict: Result<Receipt, Status>| verdict.map_err(|status| (status.code(), status.message().to_owned())).unwrap_err();
    let (code, why) = refusal(send(&mut node_1, &terms, good.len() - 1, &good[1..]).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(why.contains("store-1") && why.contains(&good.len().to_string()), "{why}");
    // Announced well, but not what comes.
    for bytes in [&good[1..], &[&good[..], &[0]].concat()] {
        let verdict = send(&mut node_1, &terms, good.len(), bytes).await;
        let refused = verdict.as_ref().map_or_else(|status| status.code() == Code::InvalidArgument, |receipt| *receipt == Receipt::Refused);
        assert!(refused, "{verdict:?}");
    }
    let (code, why) = refusal(send(&mut stranger, &terms, good.len(), &good).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(why.contains("store-3"), "{why}");
    let elsewhere = Terms { session: SessionId::new([9; 32]), ..terms.clone() };
    assert_eq!(refusal(send(&mut node_1, &elsewhere, good.len(), &good).await).0, Code::Aborted);

    for _ in 0..2 {
        let verdict = send(&mut node_1, &terms, good.len(), &good).await;
        assert_eq!(verdict.unwrap(), Receipt::Accepted, "the first receipt may have been lost");
    }
    let changed = update("store-2", &terms);
    assert_eq!(send(&mut node_1, &terms, good.len(), &changed).await.unwrap(), Receipt::Refused, "a second, other one");

    // Floats that are none. On the wire they are residues like any others, but none that clipping gives.
    let nonsense: Vec<u8> = f32::NAN.to_le_bytes().into_iter().cycle().take(good.len()).collect();
    assert_eq!(send(&mut node_2, &terms, nonsense.len(), &nonsense).await.unwrap(), Receipt::Refused);
    // The attempt has lost nothing by all this.
    let last = update("store-2", &terms);
    assert_eq!(send(&mut node_2, &terms, last.len(), &last).await.unwrap(), Receipt::Accepted);
    let mut watching = world.state.watch_run(&run).await.unwrap();
    let mut view = world.state.run(&run).await.unwrap();
    while let Some(next) = watching.next().await {
        view = next;
    }
    assert_eq!((view.state, view.rounds[0].updates, view.rounds[0].attempts), (RunState::Trained, 2, 1), "{view:?}");
    let bytes = world.state.objects().read(view.params).unwrap();
    assert!(bytes.as_chunks().0.iter().all(|bytes| f32::from_le_bytes(*bytes).is_finite()));
    assert_ne!(view.params, terms.params);
    assert_eq!(refusal(send(&mut node_1, &terms, good.len(), &good).await).0, Code::Aborted, "too late: its attempt is over");
    world.shut_down().await;
}
