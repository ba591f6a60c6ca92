//! What a node may call, under its own certificate.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sapwood_failpoint as failpoint;
use sapwood_proto::{
    convert::{self, status},
    v1::{self, instruction::Kind, node_server::Node, submit_request::Part},
};
use sapwood_protocol::{
    Fault, NodeId, RunId, Timestamp,
    fault::{Lack, Misbehaviour},
    membership::SignedMembership,
    round::{Receipt, Stage},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Desk,
    auth::{self, NodeCaller},
    desk::fault,
    transfer::{self, Places, malformed},
};
use crate::{
    app::{Said, State, UploadHeader},
    fleet::{NodeHello, NodeProfile, Order, Orders},
    pki::CertificateRequest,
};

/// Orders under way to one node.
const UNDER_WAY: usize = 4;

pub(super) struct NodeService {
    pub(super) state: State,
    pub(super) desk: Arc<Desk>,
    pub(super) places: Places,
}

impl NodeService {
    fn now(&self) -> Timestamp {
        self.state.clock().now()
    }

    /// By certificate alone: for a node that connects.
    fn caller<T>(&self, request: &Request<T>) -> Result<NodeCaller, Status> {
        auth::node(request, &self.desk.trust.population, self.now())
    }

    /// By certificate, and with a line open under it: only [`Node::connect`] tells a node from its clone.
    fn member<T>(&self, request: &Request<T>) -> Result<NodeCaller, Status> {
        let caller = self.caller(request)?;
        if self.state.fleet().is_connected(&caller.node, &caller.certified.public_key) {
            return Ok(caller);
        }
        Err(status(
            &Lack::Resource { what: "the node's line", why: format!("node {} is not connected; connect first", caller.node) }.into(),
        ))
    }

    fn hello(&self, caller: &NodeCaller, hello: v1::Hello) -> Result<(u32, NodeHello), Fault> {
        let version = Desk::negotiate(hello.version)?;
        let signed: SignedMembership = convert::from_json("membership", &hello.membership)?;
        let statement = signed.verify(&self.desk.trust.authority, &self.desk.trust.population, self.now())?;
        auth::same(caller, &statement.node)?;
        let status = if hello.status.is_empty() { None } else { Some(convert::from_json("node status", &hello.status)?) };
        let profile = hello.profile.ok_or_else(|| Misbehaviour::Malformed { what: "hello", why: "it has no profile".into() })?;
        let hello = NodeHello {
            node: caller.node.clone(),
            labels: statement.labels.clone(),
            membership: hello.membership.to_vec(),
            ticket: convert::ticket(&hello.ticket)?,
            profile: NodeProfile {
                device_class: profile.device_class.parse()?,
                arch: profile.arch,
                cores: profile.cores,
                memory_bytes: profile.memory_bytes,
                runtime: profile.runtime,
                accelerators: profile.accelerators,
                os: profile.os,
                agent_version: profile.agent_version,
                serving_address: profile.serving_address,
                trains: profile.trains,
            },
            status,
            key: caller.certified.public_key.clone(),
        };
        Ok((version, hello))
    }
}

type Line<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Node for NodeService {
    type ConnectStream = Line<v1::Instruction>;
    type FetchStream = Line<v1::Chunk>;

    async fn connect(&self, request: Request<v1::Hello>) -> Result<Response<Self::ConnectStream>, Status> {
        let caller = self.caller(&request)?;
        let (version, hello) = self.hello(&caller, request.into_inner()).map_err(|fault| status(&fault))?;
        let (ticket, orders) = self.state.connect(hello).await.map_err(|fault| status(&fault))?;
        let welcome = v1::Welcome { version, ticket: ticket.as_bytes().to_vec().into(), now_ms: self.now().millis() };
        let (sender, receiver) = mpsc::channel(UNDER_WAY);
        // A connection ends with the certificate that opened it.
        let left = caller.certified.not_after.since(self.now());
        tokio::spawn(failpoint::inherit(relay(welcome, orders, left, sender)));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let caller = self.member(&request)?;
        let message = request.into_inner();
        let sent = async {
            let place = self.places.take(&caller.node)?;
            transfer::send(self.state.objects(), convert::digest(&message.digest)?, message.offset, place).await
        };
        sent.await.map(Response::new).map_err(|fault| status(&fault))
    }

    async fn upload_status(&self, request: Request<v1::UploadKey>) -> Result<Response<v1::UploadOffset>, Status> {
        let caller = self.member(&request)?;
        let received = key(request.get_ref()).map(|(session, digest)| self.state.upload_offset(&caller.node, session, digest));
        received.map(|received| Response::new(v1::UploadOffset { received })).map_err(|fault| status(&fault))
    }

    async fn submit(&self, request: Request<Streaming<v1::SubmitRequest>>) -> Result<Response<v1::Receipt>, Status> {
        let caller = self.member(&request)?;
        let _place = self.places.take(&caller.node).map_err(|fault| status(&fault))?;
        let mut stream = request.into_inner();
        let Some(v1::SubmitRequest { part: Some(Part::Header(header)) }) = stream.message().await? else {
            return Err(malformed("upload", "it does not begin with its header"));
        };
        let header = upload(header).map_err(|fault| status(&fault))?;
        // Waits for memory; until then the sender stops at its window.
        let mut upload = self.state.upload(&caller.node, header).await.map_err(|fault| status(&fault))?;
        loop {
            let message = tokio::select! {
                message = stream.message() => message?,
                // Its memory is wanted for others.
                () = upload.unwanted() => return receipt(Ok(Receipt::Expired)),
            };
            let Some(message) = message else { break };
            let Some(Part::Data(data)) = message.part else { return Err(malformed("upload", "a second header")) };
            upload.push(&data).map_err(|fault| status(&fault))?;
        }
        receipt(upload.finish().await)
    }

    async fn exchange(&self, request: Request<v1::ExchangeRequest>) -> Result<Response<v1::ExchangeReply>, Status> {
        let caller = self.member(&request)?;
        let message = request.into_inner();
        let said = async {
            let stage = Stage::from_number(message.stage)
                .ok_or_else(|| Misbehaviour::Malformed { what: "stage", why: "there is none of this number".into() })?;
            let (run, session) = (message.run.parse()?, convert::session(&message.session)?);
            self.state.exchange(&caller.node, &run, session, stage, &message.message).await
        };
        let reply = match said.await.map_err(|fault| status(&fault))? {
            Said::Message(message) => v1::ExchangeReply { message: message.into(), outcome: Bytes::new() },
            Said::Receipt(receipt) => v1::ExchangeReply { message: Bytes::new(), outcome: convert::to_json(&receipt) },
        };
        Ok(Response::new(reply))
    }

    async fn decline(&self, request: Request<v1::DeclineRequest>) -> Result<Response<v1::Receipt>, Status> {
        let caller = self.member(&request)?;
        let message = request.into_inner();
        let outcome = async {
            let run: RunId = message.run.parse()?;
            let reason = convert::from_json("decline", &message.reason)?;
            self.state.decline(&caller.node, &run, convert::session(&message.session)?, reason).await
        };
        receipt(outcome.await)
    }

    async fn report(&self, request: Request<v1::StatusReport>) -> Result<Response<v1::Acknowledged>, Status> {
        let caller = self.member(&request)?;
        let done = async {
            let message = request.get_ref();
            self.state.report(&caller.node, convert::ticket(&message.ticket)?, convert::from_json("node status", &message.status)?).await
        };
        done.await.map(|()| Response::new(v1::Acknowledged {})).map_err(|fault| status(&fault))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewReply>, Status> {
        let caller = self.member(&request)?;
        let renewed = self.renewed(&caller.node, &request.get_ref().certificate_request);
        renewed.map(Response::new).map_err(|fault| status(&fault))
    }
}

impl NodeService {
    fn renewed(&self, node: &NodeId, request: &[u8]) -> Result<v1::RenewReply, Fault> {
        let request = CertificateRequest::parse(request).map_err(fault)?;
        let certificate = self.desk.certificate(node, &request, self.now())?;
        Ok(v1::RenewReply { certificates: vec![certificate.to_vec().into()] })
    }
}

/// Passes orders on until the node goes, the coordinator goes, or the node's certificate ends.
async fn relay(welcome: v1::Welcome, mut orders: Orders, left: Duration, sender: mpsc::Sender<Result<v1::Instruction, Status>>) {
    let end = tokio::time::sleep(left);
    tokio::pin!(end);
    let mut next = Kind::Welcome(welcome);
    loop {
        let last = matches!(next, Kind::Goodbye(_));
        if sender.send(Ok(v1::Instruction { kind: Some(next) })).await.is_err() || last {
            return;
        }
        next = tokio::select! {
            order = orders.next() => match order {
                Some(Order::Task(json)) => Kind::Task(json),
                Some(Order::Withdraw(json)) => Kind::Withdraw(json),
                Some(Order::Assignment(json)) => Kind::Assignment(json),
                Some(Order::Goodbye(why)) => Kind::Goodbye(v1::Goodbye { why }),
                None => return,
            },
            () = sender.closed() => return,
            () = &mut end => Kind::Goodbye(v1::Goodbye { why: "the certificate of this connection has expired".into() }),
        };
    }
}

fn key(key: &v1::UploadKey) -> Result<(sapwood_protocol::SessionId, sapwood_protocol::Digest), Fault> {
    Ok((convert::session(&key.session)?, convert::digest(&key.digest)?))
}

fn upload(header: v1::SubmitHeader) -> Result<UploadHeader, Fault> {
    let which = header.key.ok_or_else(|| Misbehaviour::Malformed { what: "upload", why: "its header has no key".into() })?;
    let (session, digest) = key(&which)?;
    Ok(UploadHeader { run: header.run.parse()?, session, digest, total: header.total, offset: header.offset })
}

fn receipt<T: serde::Serialize>(outcome: Result<T, Fault>) -> Result<Response<v1::Receipt>, Status> {
    let outcome: Bytes = outcome.as_ref().map(convert::to_json).map_err(status)?;
    Ok(Response::new(v1::Receipt { outcome }))
}
