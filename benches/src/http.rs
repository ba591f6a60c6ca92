//! A client of the Open Inference Protocol that costs as little as possible: one blocking connection, one request that is
//! written once and sent again and again.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

/// One kept-alive connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// `POST /v2/models/MODEL/infer` with one float32 tensor as bytes, and its answer wanted as bytes.
pub fn request(model: &str, input: &str, shape: &[usize], x: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let header = json!({
        "inputs": [{"name": input, "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": raw.len()}}],
        "parameters": {"binary_data_output": true},
    })
    .to_string();
    let head = format!(
        "POST /v2/models/{model}/infer HTTP/1.1\r\nhost: localhost\r\ninference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n",
        header.len(),
        header.len() + raw.len(),
    );
    [head.as_bytes(), header.as_bytes(), &raw].concat()
}

/// `GET /v2/health/live`: what HTTP and the kernel cost, and nothing else.
pub fn live() -> Vec<u8> {
    b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 1 << 16] })
    }

    /// Sends `request`.
    ///
    /// # Errors
    /// If the server closed the connection.
    pub fn send(&mut self, request: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(request)?)
    }

    /// Reads the whole answer to the request sent. Returns its last `tail` bytes.
    ///
    /// # Errors
    /// If the answer is not 200, or longer than 64 KiB.
    pub fn answer(&mut self, tail: usize) -> Result<&[u8]> {
        let mut have = 0;
        let whole = loop {
            have += self.read(have)?;
            let Some(end) = self.buffer[..have].windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end])?;
            ensure!(head.starts_with("HTTP/1.1 200"), "the server answered {}", String::from_utf8_lossy(&self.buffer[..have]));
            let mut fields = head.lines().filter_map(|line| line.split_once(':'));
            let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            break end + 4 + length.context("the answer has no length")?.1.trim().parse::<usize>()?;
        };
        while have < whole {
            have += self.read(have)?;
        }
        ensure!(tail <= whole, "the answer is too short");
        Ok(&self.buffer[whole - tail..whole])
    }

    fn read(&mut self, have: usize) -> Result<usize> {
        let n = self.stream.read(&mut self.buffer[have..])?;
        ensure!(n > 0, "the server closed the connection, or its answer is too long");
        Ok(n)
    }
}
