//! For tests: a real TLS 1.3 and gRPC server in this process, which answers as it is told to, and breaks off where it is told to.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateSigningRequestDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use sapwood_proto::{
    CHUNK, convert,
    v1::{self, enrollment_server, node_server},
};
use sapwood_protocol::{
    Digest, NodeId, PopulationId, Secrets, Ticket, Timestamp,
    membership::{Claim, Identity, IdentityKey, IdentitySignature, Membership, Proof, Token},
    release::verify::ReleaseTrust,
    round::Receipt,
    trust::TrustFile,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};

use crate::link::Credentials;

/// Bytes that nobody needs to keep secret.
pub(crate) struct Counting(pub(crate) u8);
impl Secrets for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        bytes.fill(self.0);
    }
}

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, p256()).unwrap())
    }
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }
    fn issue(&self, name: &str) -> (Vec<u8>, KeyPair) {
        let key = p256();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().der().to_vec(), key)
    }
    pub(crate) fn client(&self) -> Credentials {
        let (certificate, key) = self.issue("client");
        Credentials::new(vec![certificate.into()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
    /// A certificate for a request, from the start of one year to the start of another.
    pub(crate) fn sign(&self, request: &[u8], (from, until): (i64, i64)) -> Vec<u8> {
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request)).unwrap();
        let year = |year: i64| rcgen::date_time_ymd(i32::try_from(year).unwrap(), 1, 1);
        (request.params.not_before, request.params.not_after) = (year(from), year(until));
        request.signed_by(&self.0).unwrap().der().to_vec()
    }
}

fn p256() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// A deployment: authorities, a token, and what the server does.
pub(crate) struct World {
    pub(crate) ca: Ca,
    pub(crate) authority: Identity,
    pub(crate) token: Token,
    pub(crate) script: Mutex<Script>,
    /// Connections older than this are cut.
    epoch: AtomicU64,
    /// Something has arrived.
    news: watch::Sender<()>,
    myself: Weak<Self>,
}

/// What the server holds, has seen, and shall do.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) objects: HashMap<Digest, Bytes>,
    /// Before each entry's number of chunks of a fetch or an upload have passed, the connection is cut.
    pub(crate) cuts: VecDeque<usize>,
    /// Bytes to send instead of an object's own, once.
    pub(crate) forged: Option<Bytes>,
    pub(crate) fetched_from: Vec<u64>,
    pub(crate) uploads: HashMap<Digest, Vec<u8>>,
    pub(crate) uploaded_from: Vec<u64>,
    /// Digests of the updates that were received whole.
    pub(crate) receipts: Vec<Digest>,
    pub(crate) hellos: Vec<v1::Hello>,
    pub(crate) reports: Vec<Bytes>,
    pub(crate) line: Option<mpsc::Sender<Result<v1::Instruction, Status>>>,
    pub(crate) declined: Vec<v1::DeclineRequest>,
    /// How often an enrolment is answered with "not yet".
    pub(crate) pending: usize,
    pub(crate) enrolled: Vec<v1::EnrollRequest>,
    /// Years in which certificates begin and end.
    pub(crate) validity: (i64, i64),
    pub(crate) refuse_hello: Option<Status>,
    /// Answers in a secure sum; the uploads are at hand.
    pub(crate) exchange: Option<Exchange>,
}

pub(crate) type Exchange = Box<dyn FnMut(v1::ExchangeRequest, &HashMap<Digest, Vec<u8>>) -> Result<v1::ExchangeReply, Status> + Send>;

impl World {
    pub(crate) fn new() -> Arc<Self> {
        let authority = Identity::generate(&ring::rand::SystemRandom::new()).unwrap();
        Arc::new_cyclic(|myself| Self {
            myself: myself.clone(),
            ca: Ca::new(),
            authority: Identity::from_pkcs8(&authority).unwrap(),
            token: Token::generate(&mut Counting(0)),
            script: Mutex::new(Script { validity: (2020, 2080), ..Script::default() }),
            epoch: AtomicU64::new(0),
            news: watch::Sender::new(()),
        })
    }
    pub(crate) fn trust(&self) -> TrustFile {
        TrustFile {
            population: population(),
            authority: self.authority.key(),
            coordinator_ca: self.ca.pem(),
            release: ReleaseTrust { threshold: 1, keys: Vec::new() },
        }
    }
    pub(crate) fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }
    /// Waits until what has arrived is as wanted.
    pub(crate) async fn until<T>(&self, mut wanted: impl FnMut(&mut Script) -> Option<T>) -> T {
        let mut news = self.news.subscribe();
        loop {
            if let Some(found) = self.script(&mut wanted) {
                return found;
            }
            tokio::time::timeout(Duration::from_secs(60), news.changed()).await.expect("what is waited for never came").unwrap();
        }
    }
    pub(crate) fn put(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.script(|script| script.objects.insert(digest, bytes));
        digest
    }
    /// Breaks every connection at its next read or write.
    pub(crate) fn cut(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
    /// Whether the connection must be cut now, `chunks` into a transfer.
    fn cuts_at(&self, chunks: usize) -> bool {
        let due = self.script(|script| script.cuts.front().is_some_and(|at| *at == chunks).then(|| script.cuts.pop_front()));
        if due.is_some() {
            self.cut();
        }
        due.is_some()
    }

    /// Listens until the test ends. `must` wants a client certificate in every handshake.
    pub(crate) async fn listen(self: &Arc<Self>, must: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(self.server_config(must)));
        let (connections, incoming) = mpsc::channel(16);
        let world = self.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, connections, world) = (acceptor.clone(), connections.clone(), world.clone());
                tokio::spawn(async move {
                    match acceptor.accept(tcp).into_fallible().await {
                        Ok(tls) => {
                            let born = world.epoch.load(Ordering::SeqCst);
                            let _ = connections.send(Ok::<_, io::Error>(Cut { tls, born, world })).await;
                        }
                        // Read to the end: a reset would overtake the alert that says why.
                        Err((_, mut tcp)) => {
                            let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
                        }
                    }
                });
            }
        });
        let server = tonic::transport::Server::builder()
            .add_service(node_server::NodeServer::from_arc(self.clone()))
            .add_service(enrollment_server::EnrollmentServer::from_arc(self.clone()));
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        address
    }

    fn server_config(&self, must: bool) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.0.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = if must { verifier } else { verifier.allow_unauthenticated() };
        let (certificate, key) = self.ca.issue("localhost");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate.into()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

pub(crate) fn population() -> PopulationId {
    "stores".parse().unwrap()
}

pub(crate) fn node() -> NodeId {
    "store-017".parse().unwrap()
}

/// The authority's word for a node, as it is stored and shown.
pub(crate) fn member(world: &World, name: &NodeId, identity: IdentityKey) -> Vec<u8> {
    let membership = Membership {
        population: population(),
        node: name.clone(),
        identity,
        labels: [("ring".to_owned(), "lab".to_owned())].into(),
        issued: Timestamp::from_millis(1),
        expires: Timestamp::from_millis(4_000_000_000_000),
    };
    convert::to_json(&membership.sign(&world.authority)).into()
}

/// A connection that ends when its world says so.
struct Cut {
    tls: TlsStream<TcpStream>,
    born: u64,
    world: Arc<World>,
}

impl Cut {
    fn check(&self) -> io::Result<()> {
        if self.world.epoch.load(Ordering::SeqCst) == self.born { Ok(()) } else { Err(io::ErrorKind::ConnectionReset.into()) }
    }
}

impl Connected for Cut {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl node_server::Node for World {
    type ConnectStream = Out<v1::Instruction>;
    type FetchStream = Out<v1::Chunk>;

    async fn connect(&self, request: Request<v1::Hello>) -> Result<Response<Self::ConnectStream>, Status> {
        if let Some(status) = self.script(|script| script.refuse_hello.take()) {
            return Err(status);
        }
        let (line, instructions) = mpsc::channel(16);
        let n = self.script(|script| {
            script.hellos.push(request.into_inner());
            script.line = Some(line.clone());
            u8::try_from(script.hellos.len()).unwrap()
        });
        let welcome = v1::Welcome { version: 1, ticket: Ticket::new([n; 16]).as_bytes().to_vec().into(), now_ms: 0 };
        line.send(Ok(v1::Instruction { kind: Some(v1::instruction::Kind::Welcome(welcome)) })).await.unwrap();
        self.news.send_replace(());
        Ok(Response::new(Box::pin(ReceiverStream::new(instructions))))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let v1::FetchRequest { digest, offset } = request.into_inner();
        let digest = convert::digest(&digest).map_err(|fault| convert::status(&fault))?;
        let bytes = self.script(|script| {
            script.fetched_from.push(offset);
            script.forged.take().or_else(|| script.objects.get(&digest).cloned())
        });
        let bytes = bytes.ok_or_else(|| Status::not_found("no such object"))?;
        if offset > bytes.len() as u64 {
            return Err(Status::invalid_argument("the object is shorter"));
        }
        let (sender, chunks) = mpsc::channel(1);
        // A task of its own, so that the cut waits until the chunks before it have been read.
        let world = self.myself.upgrade().ok_or_else(|| Status::internal("the test is over"))?;
        tokio::spawn(async move {
            let total = bytes.len() as u64;
            let rest = bytes.slice(usize::try_from(offset).unwrap()..);
            for (n, at) in (0..rest.len().max(1)).step_by(CHUNK).enumerate() {
                if world.cuts_at(n) {
                    return;
                }
                let data = rest.slice(at..rest.len().min(at + CHUNK));
                if sender.send(Ok(v1::Chunk { data, total: if n == 0 { total } else { 0 } })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks))))
    }

    async fn upload_status(&self, request: Request<v1::UploadKey>) -> Result<Response<v1::UploadOffset>, Status> {
        let digest = convert::digest(&request.into_inner().digest).map_err(|fault| convert::status(&fault))?;
        let received = self.script(|script| script.uploads.get(&digest).map_or(0, Vec::len)) as u64;
        Ok(Response::new(v1::UploadOffset { received }))
    }

    async fn submit(&self, request: Request<Streaming<v1::SubmitRequest>>) -> Result<Response<v1::Receipt>, Status> {
        use v1::submit_request::Part;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|m| m.part) else {
            return Err(Status::invalid_argument("no header"));
        };
        let digest = convert::digest(&header.key.unwrap_or_default().digest).map_err(|fault| convert::status(&fault))?;
        self.script(|script| {
            script.uploaded_from.push(header.offset);
            script.uploads.entry(digest).or_default().truncate(usize::try_from(header.offset).unwrap());
        });
        let mut chunks = 0;
        while let Some(message) = parts.next().await {
            let Some(Part::Data(data)) = message?.part else { return Err(Status::invalid_argument("a second header")) };
            self.script(|script| script.uploads.get_mut(&digest).unwrap().extend_from_slice(&data));
            chunks += 1;
            if self.cuts_at(chunks) {
                return Err(Status::unavailable("cut"));
            }
        }
        let whole = self.script(|script| Digest::of(&script.uploads[&digest])) == digest;
        if whole {
            self.script(|script| script.receipts.push(digest));
        }
        self.news.send_replace(());
        let outcome = if whole { Receipt::Accepted } else { Receipt::Refused };
        Ok(Response::new(v1::Receipt { outcome: convert::to_json(&outcome) }))
    }

    async fn exchange(&self, request: Request<v1::ExchangeRequest>) -> Result<Response<v1::ExchangeReply>, Status> {
        let reply = self.script(|script| match &mut script.exchange {
            Some(exchange) => exchange(request.into_inner(), &script.uploads),
            None => Err(Status::unimplemented("no secure sum is asked for here")),
        });
        self.news.send_replace(());
        reply.map(Response::new)
    }
    async fn decline(&self, request: Request<v1::DeclineRequest>) -> Result<Response<v1::Receipt>, Status> {
        self.script(|script| script.declined.push(request.into_inner()));
        self.news.send_replace(());
        Ok(Response::new(v1::Receipt { outcome: convert::to_json(&Receipt::Accepted) }))
    }

    async fn report(&self, request: Request<v1::StatusReport>) -> Result<Response<v1::Acknowledged>, Status> {
        self.script(|script| script.reports.push(request.into_inner().status));
        Ok(Response::new(v1::Acknowledged {}))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewReply>, Status> {
        // What is renewed lasts, whatever the first one did.
        let certificate = self.ca.sign(&request.into_inner().certificate_request, (2020, 2080));
        Ok(Response::new(v1::RenewReply { certificates: vec![certificate.into()] }))
    }
}

#[tonic::async_trait]
impl enrollment_server::Enrollment for World {
    /// Coordinator and authority in one: checks what the authority checks, with the protocol's own code.
    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollReply>, Status> {
        use v1::enroll_reply::Outcome;
        let request = request.into_inner();
        let reply = |outcome| Ok(Response::new(v1::EnrollReply { outcome: Some(outcome) }));
        let (pending, validity) = self.script(|script| {
            script.enrolled.push(request.clone());
            let pending = script.pending;
            script.pending = pending.saturating_sub(1);
            (pending, script.validity)
        });
        if pending > 0 {
            return reply(Outcome::PendingMs(1));
        }
        let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(&request.certificate_request[..])).unwrap();
        let claim = Claim {
            population: request.population.parse().unwrap(),
            node: request.node.parse().unwrap(),
            identity: IdentityKey::from_bytes(request.identity_key[..].try_into().unwrap()),
            tls: rcgen::PublicKeyData::subject_public_key_info(&csr.public_key),
        };
        let signature = IdentitySignature::from_bytes(request.identity_signature[..].try_into().unwrap());
        let proof = Proof::from_bytes(request.proof[..].try_into().unwrap());
        if let Err(fault) = self.token.check(&claim, &proof).and_then(|()| claim.check_signature(self.token.id(), &signature)) {
            return reply(Outcome::Refused(fault.to_string()));
        }
        let membership = member(self, &claim.node, claim.identity);
        let certificate = self.ca.sign(&request.certificate_request, validity);
        reply(Outcome::Enrolled(v1::Enrolled { membership: membership.into(), certificates: vec![certificate.into()] }))
    }
}
