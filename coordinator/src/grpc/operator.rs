//! What operators and researchers may call.

use std::{collections::BTreeMap, sync::Arc};

use sapwood_failpoint as failpoint;
use sapwood_proto::{
    convert::{self, status},
    v1::{self, operator_server::Operator, put_request::Part},
};
use sapwood_protocol::{
    Fault, OperatorId,
    fault::{Lack, Misuse},
    release::{ReleaseRef, view::ReleaseView},
    version::WIRE,
};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Desk, auth,
    transfer::{self, blocking, malformed},
};
use crate::app::{ReleaseDocument, State, Submission, Watching};

/// The largest object that an operator may store.
const MAX_OBJECT: u64 = 8 << 30;

pub(super) struct OperatorService {
    pub(super) state: State,
    pub(super) desk: Arc<Desk>,
}

impl OperatorService {
    fn caller<T>(&self, request: &Request<T>) -> Result<OperatorId, Status> {
        auth::operator(request, &self.desk.trust.population, self.state.clock().now())
    }
}

/// A release for people, and under `reference` what a machine needs to fetch and verify it.
#[derive(Serialize)]
struct ShownRelease {
    #[serde(flatten)]
    view: ReleaseView,
    reference: ReleaseRef,
}

type Line<T> = ReceiverStream<Result<T, Status>>;
type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Operator for OperatorService {
    type GetStream = Line<v1::Chunk>;
    type WatchRunStream = Line<v1::Document>;
    type WatchRolloutStream = Line<v1::Document>;
    type PendingEnrollmentsStream = Line<v1::PendingEnrollment>;

    async fn put_status(&self, request: Request<v1::PutKey>) -> Reply<v1::UploadOffset> {
        self.caller(&request)?;
        let objects = self.state.objects().clone();
        let received = async {
            let digest = convert::digest(&request.get_ref().digest)?;
            blocking(move || Ok(objects.received(digest))).await
        };
        answer(received.await.map(|received| v1::UploadOffset { received }))
    }

    async fn put(&self, request: Request<Streaming<v1::PutRequest>>) -> Reply<v1::Acknowledged> {
        self.caller(&request)?;
        let mut stream = request.into_inner();
        let Some(v1::PutRequest { part: Some(Part::Header(header)) }) = stream.message().await? else {
            return Err(malformed("transfer", "it does not begin with its header"));
        };
        let objects = self.state.objects().clone();
        let begun = async {
            let digest = convert::digest(&header.digest)?;
            if header.total > MAX_OBJECT {
                let why = format!("{} bytes; at most {MAX_OBJECT} are stored", header.total);
                return Err(Misuse::State { what: format!("object {digest}"), why }.into());
            }
            blocking(move || Ok(objects.receive(digest, header.total, header.offset)?)).await
        };
        let mut partial = begun.await.map_err(|fault: Fault| status(&fault))?;
        while let Some(message) = stream.message().await? {
            let Some(Part::Data(data)) = message.part else { return Err(malformed("transfer", "a second header")) };
            let pushed = blocking(move || {
                partial.push(&data)?;
                Ok(partial)
            });
            partial = pushed.await.map_err(|fault| status(&fault))?;
        }
        answer(blocking(move || Ok(partial.finish()?)).await.map(|()| v1::Acknowledged {}))
    }

    async fn get(&self, request: Request<v1::FetchRequest>) -> Reply<Self::GetStream> {
        self.caller(&request)?;
        let message = request.into_inner();
        let sent = async { transfer::send(self.state.objects(), convert::digest(&message.digest)?, message.offset, ()).await };
        answer(sent.await)
    }

    async fn submit_run(&self, request: Request<v1::SubmitRunRequest>) -> Reply<v1::Document> {
        let operator = self.caller(&request)?;
        let message = request.into_inner();
        let submitted = async {
            let objects = message.objects.iter().map(|(name, digest)| Ok((name.clone(), convert::digest(digest)?)));
            let objects = objects.collect::<Result<BTreeMap<_, _>, Fault>>()?;
            let (state, submission) = (self.state.clone(), Submission { spec: message.spec, objects, token: message.token });
            // Whoever hangs up now must not leave a run that nobody drives.
            let submitted = tokio::spawn(failpoint::inherit(async move { state.submit_run(submission).await })).await;
            submitted.unwrap_or_else(|_| Err(Lack::Resource { what: "the coordinator", why: "it is shutting down".into() }.into()))
        };
        let view = submitted.await;
        tracing::info!(%operator, accepted = view.is_ok(), "a run was submitted");
        document(view)
    }

    async fn list_runs(&self, request: Request<v1::ListRequest>) -> Reply<v1::Document> {
        self.caller(&request)?;
        document(self.state.runs().await)
    }

    async fn show_ledgers(&self, request: Request<v1::ListRequest>) -> Reply<v1::Document> {
        self.caller(&request)?;
        document(Ok(self.state.ledgers().views()))
    }

    async fn show_run(&self, request: Request<v1::ByName>) -> Reply<v1::Document> {
        self.caller(&request)?;
        document(async { self.state.run(&request.get_ref().name.parse()?).await }.await)
    }

    async fn watch_run(&self, request: Request<v1::ByName>) -> Reply<Self::WatchRunStream> {
        self.caller(&request)?;
        let changes = async { self.state.watch_run(&request.get_ref().name.parse()?).await };
        answer(changes.await.map(follow))
    }

    async fn stop_run(&self, request: Request<v1::StopRequest>) -> Reply<v1::Document> {
        let operator = self.caller(&request)?;
        let message = request.into_inner();
        tracing::info!(%operator, run = %message.name, why = %message.why, "a run is stopped");
        let by = if message.why.is_empty() { operator.to_string() } else { format!("{operator}: {}", message.why) };
        document(async { self.state.stop_run(&message.name.parse()?, by).await }.await)
    }

    async fn list_releases(&self, request: Request<v1::ListRequest>) -> Reply<v1::Document> {
        self.caller(&request)?;
        document(self.state.releases().await)
    }

    async fn show_release(&self, request: Request<v1::ByName>) -> Reply<v1::Document> {
        self.caller(&request)?;
        let shown = async {
            let ReleaseDocument { view, reference, .. } = self.state.release_document(&request.get_ref().name.parse()?).await?;
            Ok(ShownRelease { view, reference })
        };
        document(shown.await)
    }

    async fn show_rollout(&self, request: Request<v1::ByName>) -> Reply<v1::Document> {
        self.caller(&request)?;
        document(async { self.state.rollout(&request.get_ref().name.parse()?).await }.await)
    }

    async fn watch_rollout(&self, request: Request<v1::ByName>) -> Reply<Self::WatchRolloutStream> {
        self.caller(&request)?;
        let changes = async { self.state.watch_rollout(&request.get_ref().name.parse()?).await };
        answer(changes.await.map(follow))
    }

    async fn list_nodes(&self, request: Request<v1::ListRequest>) -> Reply<v1::Document> {
        self.caller(&request)?;
        document(Ok(self.state.nodes()))
    }

    async fn show_node(&self, request: Request<v1::ByName>) -> Reply<v1::Document> {
        self.caller(&request)?;
        document(request.get_ref().name.parse().and_then(|node| self.state.node(&node)))
    }

    /// What waits now, then the end: whoever answers asks again.
    async fn pending_enrollments(&self, request: Request<v1::ListRequest>) -> Reply<Self::PendingEnrollmentsStream> {
        self.caller(&request)?;
        let pending = self.desk.pending(&self.state).await.map_err(|fault| status(&fault))?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for enrollment in pending {
                if sender.send(Ok(enrollment)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn authorize(&self, request: Request<v1::AuthorizeRequest>) -> Reply<v1::Acknowledged> {
        let operator = self.caller(&request)?;
        let done = self.desk.authorize(&self.state, request.into_inner()).await;
        tracing::info!(%operator, accepted = done.is_ok(), "an enrolment was answered");
        answer(done.map(|()| v1::Acknowledged {}))
    }

    async fn status(&self, request: Request<v1::ListRequest>) -> Reply<v1::Document> {
        self.caller(&request)?;
        let nodes = self.state.nodes();
        let status = async {
            Ok(json!({
                "version": env!("CARGO_PKG_VERSION"),
                "wire": WIRE,
                "population": self.desk.trust.population,
                "now": self.state.clock().now().to_string(),
                "authority_here": self.desk.authority.is_some(),
                "nodes": nodes.len(),
                "connected": nodes.iter().filter(|node| node.connected).count(),
                "runs": self.state.runs().await?.len(),
                "releases": self.state.releases().await?.len(),
            }))
        };
        document(status.await)
    }
}

/// The view now, and again after every change, until there will be no more.
fn follow<M: Send + Sync + 'static, V: Serialize + Send + 'static>(mut watching: Watching<M, V>) -> Line<v1::Document> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(failpoint::inherit(async move {
        loop {
            let view = tokio::select! {
                view = watching.next() => view,
                () = sender.closed() => None,
            };
            let Some(view) = view else { return };
            if sender.send(Ok(v1::Document { json: convert::to_json(&view) })).await.is_err() {
                return;
            }
        }
    }));
    ReceiverStream::new(receiver)
}

fn answer<T>(result: Result<T, Fault>) -> Reply<T> {
    result.map(Response::new).map_err(|fault| status(&fault))
}

fn document<T: Serialize>(view: Result<T, Fault>) -> Reply<v1::Document> {
    answer(view.map(|view| v1::Document { json: convert::to_json(&view) }))
}
