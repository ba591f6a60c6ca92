//! What clients see. Real graphs in the real ONNX Runtime.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use sapwood_data::Schema;
use sapwood_models::{compose, zoo};
use sapwood_protocol::{
    Digest,
    release::{Postprocess, documents::SchemaId},
};
use sapwood_runtime::{Input, InstallOptions, Runtime, View};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Engine, Model, Served, router};

const X: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

fn served(version: &str, seed: u64) -> Served {
    let installed = sapwood_runtime::install(InstallOptions::default(), &mut |_| ()).unwrap();
    let runtime = Runtime::load(Some(&installed.path)).unwrap();
    let graph = compose(&zoo::scale(&[4], 0.5), &zoo::mlp(4, &[3], 2, seed)).unwrap();
    let model = Model {
        name: "m".into(),
        version: version.into(),
        digest: Digest::of(version.as_bytes()),
        onnx: graph.encode(),
        threads: 1,
        sessions: 1,
    };
    let mut served = Served::load(runtime, model).unwrap();
    let name = served.inputs()[0].name.clone();
    served.warm(&[Input { name: &name, shape: &[1, 4], data: View::F32(&X) }]).unwrap();
    served
}

fn engine() -> Arc<Engine> {
    let engine = Arc::new(Engine::new());
    engine.exchange(Some(served("1", 7)));
    engine
}

async fn call(engine: &Arc<Engine>, request: Request<Body>) -> (StatusCode, Option<usize>, Vec<u8>) {
    let response = router(engine.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let split = response.headers().get("inference-header-content-length").map(|v| v.to_str().unwrap().parse().unwrap());
    (status, split, to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec())
}

async fn get(engine: &Arc<Engine>, path: &str) -> (StatusCode, Value) {
    let (status, _, body) = call(engine, Request::get(path).body(Body::empty()).unwrap()).await;
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn post(engine: &Arc<Engine>, body: Value) -> (StatusCode, Value) {
    let request = Request::post("/v2/models/m/infer").body(Body::from(body.to_string())).unwrap();
    let (status, _, body) = call(engine, request).await;
    (status, serde_json::from_slice(&body).unwrap())
}

fn floats(value: &Value) -> Vec<f64> {
    value["outputs"][0]["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

async fn binary(engine: &Arc<Engine>, tail: &[u8]) -> (StatusCode, Option<usize>, Vec<u8>) {
    let header = json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}],
        "parameters": {"binary_data_output": true}})
    .to_string();
    let raw: Vec<u8> = X.iter().flat_map(|v| v.to_le_bytes()).collect();
    let request = Request::post("/v2/models/m/versions/1/infer").header("inference-header-content-length", header.len());
    call(engine, request.body(Body::from([header.as_bytes(), &raw, tail].concat())).unwrap()).await
}

#[tokio::test]
async fn health_and_metadata() {
    let empty = Arc::new(Engine::new());
    assert_eq!(get(&empty, "/v2/health/live").await.0, StatusCode::OK);
    assert_eq!(get(&empty, "/v2/health/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let engine = engine();
    for path in ["/v2/health/ready", "/v2/models/m/ready", "/v2/models/m/versions/1/ready"] {
        assert_eq!(get(&engine, path).await.0, StatusCode::OK, "{path}");
    }
    let (_, metadata) = get(&engine, "/v2/models/m").await;
    assert_eq!(metadata["inputs"][0], json!({"name": "input", "datatype": "FP32", "shape": [-1, 4]}));
    assert_eq!(metadata["versions"], json!(["1"]));
    assert_eq!(metadata["parameters"]["digest"], json!(Digest::of(b"1")));
}

#[tokio::test]
async fn json_flat_nested_and_binary_give_the_same_numbers() {
    let engine = engine();
    let input = |data: Value| json!({"id": "a", "inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": data}]});
    let (status, flat) = post(&engine, input(json!(X))).await;
    assert_eq!(status, StatusCode::OK, "{flat}");
    assert_eq!(flat["id"], "a");
    let (_, nested) = post(&engine, input(json!([X]))).await;
    assert_eq!(floats(&flat), floats(&nested));
    let (status, split, body) = binary(&engine, &[]).await;
    assert_eq!(status, StatusCode::OK);
    let raw = &body[split.unwrap()..];
    let numbers: Vec<f64> = raw.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
    let near = floats(&flat).iter().zip(&numbers).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(near, "{flat} {numbers:?}");
}

/// Found by review: a client that declared a body and sent none of it kept the node from stopping.
#[test]
fn a_stalled_client_does_not_hold_up_a_stop() {
    use std::io::Write;
    let server = super::start(([127, 0, 0, 1], 0).into(), engine()).unwrap();
    let mut client = std::net::TcpStream::connect(server.address).unwrap();
    client.write_all(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{").unwrap();
    // Whether the request has begun or not, this returns.
    server.stop();
}

/// Every refusal is JSON with a status, and says what is wrong.
#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let engine = engine();
    let tensor = |shape: Value, datatype: &str, data: Value| json!({"inputs": [{"name": "input", "datatype": datatype, "shape": shape, "data": data}]});
    for (body, word) in [
        (tensor(json!([1, 3]), "FP32", json!([1, 2, 3])), "shape"),
        (tensor(json!([1, 4]), "FP32", json!([1, 2, 3])), "bytes"),
        (tensor(json!([1, 4]), "INT64", json!([1, 2, 3, 4])), "I64"),
        (tensor(json!([1, 4]), "BYTES", json!(["a"])), "BYTES"),
        (tensor(json!([1, 4]), "FP32", json!(["a"])), "input"),
        (json!({"inputs": []}), "input"),
        (json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4]}]}), "neither"),
        (json!({}), "inputs"),
        (json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": X}], "outputs": [{"name": "nope"}]}), "nope"),
    ] {
        let (status, answer) = post(&engine, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body} {answer}");
        assert!(answer["error"].as_str().unwrap().contains(word), "{word}: {answer}");
    }
    assert_eq!(binary(&engine, b"x").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(get(&engine, "/v2/models/other").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&engine, "/v2/models/m/versions/9").await.0, StatusCode::NOT_FOUND);
    let (status, answer) = get(&engine, "/nowhere").await;
    assert!(status == StatusCode::NOT_FOUND && answer["error"].is_string());
    let zipped = Request::post("/v2/models/m/infer").header("content-encoding", "gzip").body(Body::empty()).unwrap();
    assert_eq!(call(&engine, zipped).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

/// R43: what the schema forbids is refused by feature and rule, in JSON and in bytes, whichever input it is.
#[tokio::test]
async fn requests_that_break_the_schema_are_refused_by_name() {
    let schema = |text: &str| Schema::parse(&format!("{text}\n[targets]\nclasses = 2")).unwrap();
    let mut model = served("1", 7);
    let id = SchemaId { version: 3, digest: Digest::of(b"schema") };
    let refused = model.guard(&schema("[input]\nshape = [5]"), id).unwrap_err().to_string();
    assert!(refused.contains("shape [5], the model reads [4]"), "{refused}");
    let columns =
        r#"{ name = "a" }, { name = "b", range = [0, 2] }, { name = "c", type = "integer" }, { name = "d", null = { fill = 1 } }"#;
    model.guard(&schema(&format!("[input]\ncolumns = [{columns}]")), id).unwrap();
    let engine = Arc::new(Engine::new());
    engine.exchange(Some(model));
    let tensor = |rows: &[[f32; 4]]| json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [rows.len(), 4], "data": rows}]});
    assert_eq!(post(&engine, tensor(&[X, [9.0, 0.5, -3.0, 0.1]])).await.0, StatusCode::OK);
    for (row, said) in [
        ([1.0, 3.0, 1.0, 1.0], "row 1, input `input`, column `b`: 3 is outside 0..=2, the range in the schema"),
        ([1.0, 1.0, 1.5, 1.0], "row 1, input `input`, column `c`: 1.5 is no whole number, and the type in the schema is integer"),
    ] {
        let (status, answer) = post(&engine, tensor(&[X, row])).await;
        assert_eq!((status, answer["error"].as_str()), (StatusCode::BAD_REQUEST, Some(said)));
    }
    // A client may say for which schema it made its numbers.
    let said = |digest: Digest| {
        let mut body = tensor(&[X]);
        body["parameters"] = json!({"schema": digest});
        body
    };
    assert_eq!(post(&engine, said(id.digest)).await.0, StatusCode::OK);
    let (status, answer) = post(&engine, said(Digest::of(b"other"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["error"].as_str().unwrap().ends_with(&format!("this model reads version 3, {}", id.digest)), "{answer}");
    assert_eq!(post(&super::tests::engine(), said(id.digest)).await.0, StatusCode::BAD_REQUEST);
    // Bytes may hold what JSON cannot.
    assert_eq!(binary(&engine, &[]).await.0, StatusCode::OK);
    let (status, body) = binary_of(&engine, [1.0, 1.0, 1.0, f32::NAN]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("column `d`: NaN is null; the schema has 1 in its place"), "{body}");
}

async fn binary_of(engine: &Arc<Engine>, x: [f32; 4]) -> (StatusCode, String) {
    let header =
        json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}).to_string();
    let raw: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let request = Request::post("/v2/models/m/infer").header("inference-header-content-length", header.len());
    let (status, _, body) = call(engine, request.body(Body::from([header.as_bytes(), &raw].concat())).unwrap()).await;
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// R45: the same outputs, and another threshold.
#[tokio::test]
async fn answers_are_asked_for_by_name_and_follow_the_configuration() {
    let engine = |threshold: f64| {
        let mut model = served("1", 7);
        let labels = ["cat", "dog"].map(String::from).to_vec();
        model.postprocess(Postprocess::Softmax { labels, threshold, below: Some("unknown".into()) }).unwrap();
        let engine = Arc::new(Engine::new());
        engine.exchange(Some(model));
        engine
    };
    let asked = |names: &[&str]| {
        let outputs: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [2, 4], "data": [X, [0.0, 0.0, 0.0, 0.0]]}], "outputs": outputs})
    };
    let (status, answer) = post(&engine(0.0), asked(&["label", "logits", "score", "accepted"])).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let output = |answer: &Value, at: usize| answer["outputs"][at]["data"].clone();
    let logits: Vec<f64> = output(&answer, 1).as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let labels: Vec<&str> = logits.chunks(2).map(|row| if row[1] > row[0] { "dog" } else { "cat" }).collect();
    assert_eq!((output(&answer, 0), output(&answer, 3)), (json!(labels), json!([true, true])));
    let score = 1.0 / (1.0 + (-(logits[0] - logits[1]).abs()).exp());
    assert!((output(&answer, 2)[0].as_f64().unwrap() - score).abs() < 1e-6, "{answer}");
    assert_eq!(answer["outputs"][0]["datatype"], "BYTES");

    let (_, strict) = post(&engine(1.0), asked(&["label", "logits", "accepted"])).await;
    assert_eq!((output(&strict, 0), output(&strict, 2)), (json!(["unknown", "unknown"]), json!([false, false])));
    assert_eq!(output(&strict, 1), output(&answer, 1));
    // Nobody gets what was not asked for, and without a configuration there is nothing to ask for.
    let (_, plain) = post(&engine(0.5), asked(&[])).await;
    assert_eq!(plain["outputs"].as_array().unwrap().len(), 1);
    let (status, none) = post(&super::tests::engine(), asked(&["label"])).await;
    assert_eq!((status, none["error"].as_str()), (StatusCode::BAD_REQUEST, Some("the model has no output \"label\"")));
    let wrong = Postprocess::Softmax { labels: vec!["one".into()], threshold: 0.5, below: None };
    assert!(served("1", 7).postprocess(wrong).unwrap_err().to_string().contains("1 of them, and the model has 2 classes"));
}

/// A model is exchanged while requests run: none fails, and each answer comes from one model or the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_loses_no_request() {
    let engine = engine();
    let (_, _, before) = binary(&engine, &[]).await;
    let others: Vec<_> = (0..50).map(|i| served("1", 7 + i % 2)).collect();
    let exchanging = engine.clone();
    let exchanges = std::thread::spawn(move || others.into_iter().for_each(|s| exchanging.exchange(Some(s))));
    let mut after = Vec::new();
    while !exchanges.is_finished() || after.len() < 50 {
        let (status, _, body) = binary(&engine, &[]).await;
        assert_eq!(status, StatusCode::OK);
        after.push(body);
    }
    exchanges.join().unwrap();
    let mut kinds = after;
    kinds.push(before);
    kinds.sort();
    kinds.dedup();
    assert!(kinds.len() <= 2, "an answer came from neither model");
}
