//! A client of the Open Inference Protocol, as small as the demo needs: one connection, binary tensors.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// One kept-alive connection to a node's inference server.
pub(super) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("nobody listens at {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_string() })
    }

    /// `POST /v2/models/MODEL/infer` with one float32 tensor; the output as floats, row-major.
    pub(super) async fn infer(&mut self, model: &str, input: &str, shape: &[usize], x: &[f32]) -> Result<Vec<f32>> {
        let raw: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
        let header = json!({
            "inputs": [{"name": input, "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": raw.len()}}],
            "parameters": {"binary_data_output": true},
        })
        .to_string();
        let length = header.len();
        let body = [header.into_bytes(), raw].concat();
        let request = Request::post(format!("/v2/models/{model}/infer"))
            .header("host", &self.host)
            .header("inference-header-content-length", length)
            .body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await.with_context(|| format!("{} closed the connection", self.host))?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let split = response.headers().get("inference-header-content-length").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "{} answered {status}: {}", self.host, String::from_utf8_lossy(&body));
        let split: usize = split.context("the answer has no binary part")?;
        ensure!(split <= body.len() && (body.len() - split).is_multiple_of(4), "the answer's binary part is cut");
        Ok(body[split..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// `GET PATH` as JSON.
    pub(super) async fn get(&mut self, path: &str) -> Result<Value> {
        let request = Request::get(path).header("host", &self.host).body(Full::default())?;
        self.sender.ready().await.with_context(|| format!("{} closed the connection", self.host))?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "{} answered {status} to {path}", self.host);
        Ok(serde_json::from_slice(&body)?)
    }
}
