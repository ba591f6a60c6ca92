//! An operator's calls, through deaths of the coordinator.

use std::{fs, path::PathBuf};

use sapwood_edge_node::link::{self, Credentials};
use sapwood_proto::{MAX_MESSAGE, v1};
use sapwood_protocol::{
    Digest,
    release::view::{NodeInfo, ReleaseView, RolloutView},
    view::RunView,
};
use serde::de::DeserializeOwned;
use tonic::{Response, Status, transport::Channel};

type Client = v1::operator_client::OperatorClient<Channel>;

/// A line to the coordinator that is made again when it breaks. Every call answers `None` while there is nothing to say:
/// the coordinator is away, or does not know the name yet.
pub struct Operator {
    address: String,
    credentials: PathBuf,
    client: Option<Client>,
}

impl Operator {
    /// Nothing is connected yet. `credentials` is the folder with cert.pem, key.pem and ca.pem.
    pub fn new(address: &str, credentials: PathBuf) -> Self {
        Self { address: address.to_owned(), credentials, client: None }
    }

    async fn client(&mut self) -> Option<&mut Client> {
        if self.client.is_none() {
            let read = |name: &str| fs::read(self.credentials.join(name)).expect("the operator has credentials");
            let credentials = Credentials::from_pem(&read("cert.pem"), &read("key.pem")).expect("they can be read");
            let channel = link::channel(&self.address, &read("ca.pem"), Some(credentials)).await.ok()?;
            self.client = Some(Client::new(channel).max_decoding_message_size(8 * MAX_MESSAGE));
        }
        self.client.as_mut()
    }

    fn read<T: DeserializeOwned>(&mut self, reply: Result<Response<v1::Document>, Status>) -> Option<T> {
        match reply {
            Ok(document) => Some(serde_json::from_slice(&document.into_inner().json).expect("a view of this version")),
            Err(status) => {
                if status.code() != tonic::Code::NotFound {
                    self.client = None;
                }
                None
            }
        }
    }

    /// A run with its rounds.
    pub async fn run(&mut self, name: &str) -> Option<RunView> {
        let reply = self.client().await?.show_run(v1::ByName { name: name.to_owned() }).await;
        self.read(reply)
    }

    /// A release.
    pub async fn release(&mut self, name: &str) -> Option<ReleaseView> {
        let reply = self.client().await?.show_release(v1::ByName { name: name.to_owned() }).await;
        self.read(reply)
    }

    /// A release's rollout.
    pub async fn rollout(&mut self, name: &str) -> Option<RolloutView> {
        let reply = self.client().await?.show_rollout(v1::ByName { name: name.to_owned() }).await;
        self.read(reply)
    }

    /// All nodes.
    pub async fn nodes(&mut self) -> Option<Vec<NodeInfo>> {
        let reply = self.client().await?.list_nodes(v1::ListRequest {}).await;
        self.read(reply)
    }

    /// An object's bytes.
    pub async fn get(&mut self, digest: Digest) -> Option<Vec<u8>> {
        let request = v1::FetchRequest { digest: digest.as_bytes().to_vec().into(), offset: 0 };
        let mut chunks = self.client().await?.get(request).await.ok()?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await.ok()? {
            bytes.extend_from_slice(&chunk.data);
        }
        (Digest::of(&bytes) == digest).then_some(bytes)
    }
}
