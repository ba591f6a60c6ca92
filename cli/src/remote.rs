//! Calls to a coordinator, as an operator.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use sapwood_edge_node::link::{self, Credentials};
use sapwood_proto::{CHUNK, MAX_MESSAGE, v1};
use sapwood_protocol::Digest;
use serde::de::DeserializeOwned;
use tonic::{Code, Status, transport::Channel};

use crate::output::{Exit, Failure, OrFail};

/// Which coordinator, and as whom.
#[derive(Args, Clone)]
pub(crate) struct Operator {
    /// HOST:PORT of the coordinator.
    #[arg(long, env = "SAPWOOD_COORDINATOR", default_value = "127.0.0.1:7443")]
    pub(crate) coordinator: String,
    /// The folder with cert.pem, key.pem and ca.pem that `sapwood init` made.
    #[arg(long, env = "SAPWOOD_CREDENTIALS", default_value = "operator")]
    pub(crate) credentials: PathBuf,
}

/// An open line to a coordinator.
pub(crate) struct Remote {
    pub(crate) client: v1::operator_client::OperatorClient<Channel>,
}

impl Operator {
    pub(crate) async fn connect(&self) -> Result<Remote, Failure> {
        let read = |name: &str| {
            let path = self.credentials.join(name);
            let hint = "name the folder with --credentials or SAPWOOD_CREDENTIALS";
            fs::read(&path).map_err(|e| Failure::new(Exit::NotAuthorized, format!("{}: {e}", path.display())).hint(hint))
        };
        let credentials = Credentials::from_pem(&read("cert.pem")?, &read("key.pem")?).or_fail(Exit::NotAuthorized)?;
        let hint = format!("is a coordinator running at {}? Name another with --coordinator or SAPWOOD_COORDINATOR", self.coordinator);
        let channel = link::channel(&self.coordinator, &read("ca.pem")?, Some(credentials)).await;
        let channel = channel.or_fail(Exit::TimedOut).map_err(|f| f.hint(hint))?;
        let client = v1::operator_client::OperatorClient::new(channel).max_decoding_message_size(8 * MAX_MESSAGE);
        Ok(Remote { client })
    }
}

/// A view from the wire.
pub(crate) fn view<T: DeserializeOwned>(document: &v1::Document) -> Result<T, Failure> {
    serde_json::from_slice(&document.json)
        .map_err(|e| Failure::internal(format!("the coordinator's answer cannot be read: {e}")).hint("are both sides of the same version?"))
}

/// A refusal from the other side, with the exit code that it means.
pub(crate) fn refused(status: &Status) -> Failure {
    // In TLS 1.3 a server refuses a client's certificate after the handshake: all that is seen of it is a line that breaks.
    if std::error::Error::source(status).is_some() && matches!(status.code(), Code::Cancelled | Code::Unknown) {
        let failure = Failure::new(Exit::TimedOut, format!("the coordinator broke the line off: {}", status.message()));
        return failure.hint("does it accept the certificate in --credentials? Its log says");
    }
    let exit = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => Exit::NotAuthorized,
        Code::AlreadyExists | Code::Aborted => Exit::Conflict,
        Code::FailedPrecondition => Exit::Refused,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::TimedOut,
        _ => Exit::Internal,
    };
    Failure::new(exit, status.message())
}

impl Remote {
    /// Stores a file under its digest; what arrived before is not sent again. Also where all of it arrived: a coordinator that
    /// died before it kept the object keeps it now.
    pub(crate) async fn put(&mut self, path: &Path) -> Result<Digest, Failure> {
        let bytes = read_whole(path)?;
        let digest = Digest::of(&bytes);
        let key = v1::PutKey { digest: digest.as_bytes().to_vec().into() };
        let offset = self.client.put_status(key).await.map_err(|s| refused(&s))?.into_inner().received;
        let total = bytes.len() as u64;
        let header = v1::PutHeader { digest: digest.as_bytes().to_vec().into(), total, offset };
        let rest = bytes.slice(usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len())..);
        let chunks = (0..rest.len()).step_by(CHUNK).map(move |at| rest.slice(at..rest.len().min(at + CHUNK)));
        let parts = std::iter::once(v1::put_request::Part::Header(header)).chain(chunks.map(v1::put_request::Part::Data));
        let stream = tokio_stream::iter(parts.map(|part| v1::PutRequest { part: Some(part) }));
        self.client.put(stream).await.map_err(|s| refused(&s))?;
        Ok(digest)
    }

    /// Reads an object by digest and checks it.
    pub(crate) async fn get(&mut self, digest: Digest) -> Result<Vec<u8>, Failure> {
        let request = v1::FetchRequest { digest: digest.as_bytes().to_vec().into(), offset: 0 };
        let mut chunks = self.client.get(request).await.map_err(|s| refused(&s))?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await.map_err(|s| refused(&s))? {
            bytes.extend_from_slice(&chunk.data);
        }
        if Digest::of(&bytes) != digest {
            return Err(Failure::new(Exit::Refused, format!("the coordinator sent other bytes than {digest}")));
        }
        Ok(bytes)
    }

    /// Stores every file and returns the map that a submission carries.
    pub(crate) async fn put_all(&mut self, files: &[(String, PathBuf)]) -> Result<HashMap<String, Bytes>, Failure> {
        let mut objects = HashMap::new();
        for (name, path) in files {
            objects.insert(name.clone(), self.put(path).await?.as_bytes().to_vec().into());
        }
        Ok(objects)
    }
}

fn read_whole(path: &Path) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    let fail = |e: std::io::Error| Failure::new(Exit::NotFound, format!("{}: {e}", path.display()));
    File::open(path).map_err(fail)?.read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes.into())
}

/// One small runtime for one command.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().or_fail(Exit::Internal)?.block_on(work)
}
