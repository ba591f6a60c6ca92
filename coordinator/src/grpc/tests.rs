//! The services over real TLS on loopback: enrol, connect, fetch, and every way of being someone else.

mod updates;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use ring::rand::SystemRandom;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use sapwood_proto::v1::{
    self, enroll_reply::Outcome, enrollment_client::EnrollmentClient, instruction::Kind, node_client::NodeClient,
    operator_client::OperatorClient,
};
use sapwood_protocol::{
    Digest, Timestamp,
    membership::{Claim, Identity as Key, SignedMembership, Token},
    release::SigningKey,
    trust::TrustFile,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::*;
use crate::{
    app::{Limits, Parts, State},
    clock::SystemClock,
    objects::Objects,
    pki::{Authority, Ca, Deployment, FoundOptions, Identity, Role, ServerCertificate, SystemSecrets, TokenTerms, found, server_config},
    release::{Candidates, CandidatesOptions, Probe},
    store::MemoryStore,
};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(elapsed.as_millis().try_into().unwrap())
}

/// A coordinator on loopback.
struct World {
    _folder: TempDir,
    deployment: Deployment,
    authority: Arc<Authority>,
    ca_pem: String,
    state: State,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

/// What a node has after its enrolment.
struct Member {
    membership: Bytes,
    certificate: CertificateDer<'static>,
    key: String,
}

impl World {
    /// `beside`: the coordinator has the authority's key.
    async fn new(beside: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = FoundOptions::local("fleet".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
        let deployment = found(&folder.path().join("fleet"), &options, now()).unwrap();
        let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
        let ca_pem = read(deployment.ca());
        let ca = Ca::load(&ca_pem, &read(deployment.ca_key())).unwrap();
        let authority = Arc::new(Authority::open(&deployment.authority()).unwrap());
        let who = Identity { population: options.population.clone(), role: Role::Coordinator };
        let shown = ServerCertificate::new(&ca.server(&who, &options.names, now(), HOUR).unwrap()).unwrap();
        let tls = server_config(&ca, Arc::new(shown)).unwrap();
        let key = SigningKey::from_pkcs8(&std::fs::read(deployment.release_key()).unwrap(), &SystemRandom::new()).unwrap();
        let work = Candidates::new(CandidatesOptions {
            key,
            probe: Probe::new(["false"]).unwrap(),
            class: "x86_64".parse().unwrap(),
            library: None,
        });
        let state = State::start(Parts {
            store: Arc::new(MemoryStore::default()),
            objects: Objects::open(&folder.path().join("objects")).unwrap(),
            clock: Arc::new(SystemClock),
            work: Arc::new(work),
            secrets: || Box::new(SystemSecrets),
            limits: Limits::default(),
            budgets: crate::ledgers::Budgets::default(),
            restored: false,
        });
        let state = state.await.unwrap();
        let trust = TrustFile::parse(&read(deployment.trust())).unwrap();
        let desk = Desk { trust, ca, authority: beside.then(|| authority.clone()), lifetime: HOUR };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(listener, tls, Doors::default(), state.clone(), Arc::new(desk), async {
            let _ = stopped.await;
        });
        let served = tokio::spawn(async move { serving.await.unwrap() });
        Self { _folder: folder, deployment, authority, ca_pem, state, address, stop: Some(stop), served }
    }

    /// A connection, with a certificate or without one.
    async fn channel(&self, own: Option<(CertificateDer<'static>, &str)>) -> Result<Channel, tonic::transport::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, address) = (TlsConnector::from(Arc::new(config)), self.address);
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let socket = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, socket).await?))
            }
        });
        Endpoint::from_static("https://localhost").connect_with_connector(connect).await
    }

    async fn operator(&self) -> OperatorClient<Channel> {
        let certificate = std::fs::read(self.deployment.operator_certificate()).unwrap();
        let key = std::fs::read_to_string(self.deployment.operator_key()).unwrap();
        let own = (CertificateDer::from_pem_slice(&certificate).unwrap(), key.as_str());
        OperatorClient::new(self.channel(Some(own)).await.unwrap())
    }

    fn token(&self) -> Token {
        let terms = TokenTerms { labels: [("ring".to_owned(), "lab".to_owned())].into(), node: None, lifetime: HOUR };
        self.authority.mint(&terms, now()).unwrap()
    }

    async fn ask(&self, request: v1::EnrollRequest) -> Result<Outcome, Status> {
        let mut client = EnrollmentClient::new(self.channel(None).await.unwrap());
        Ok(client.enroll(request).await?.into_inner().outcome.unwrap())
    }

    async fn enroll(&self, node: &str) -> Member {
        let (request, key) = application(&self.token(), node);
        match self.ask(request).await.unwrap() {
            Outcome::Enrolled(enrolled) => member(enrolled, key),
            other => panic!("{other:?}"),
        }
    }

    async fn node(&self, member: &Member) -> NodeClient<Channel> {
        NodeClient::new(self.channel(Some((member.certificate.clone(), &member.key))).await.unwrap())
    }

    async fn shut_down(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.state.shutdown().await;
        self.served.await.unwrap();
    }
}

fn member(enrolled: v1::Enrolled, key: String) -> Member {
    Member { membership: enrolled.membership, certificate: enrolled.certificates[0].to_vec().into(), key }
}

fn application(token: &Token, node: &str) -> (v1::EnrollRequest, String) {
    let tls = KeyPair::generate().unwrap();
    let identity = Key::from_pkcs8(&Key::generate(&SystemRandom::new()).unwrap()).unwrap();
    let claim = Claim {
        population: "fleet".parse().unwrap(),
        node: node.parse().unwrap(),
        identity: identity.key(),
        tls: tls.subject_public_key_info(),
    };
    let request = v1::EnrollRequest {
        population: "fleet".into(),
        node: node.into(),
        token_id: token.id().to_string(),
        proof: token.prove(&claim).as_bytes().to_vec().into(),
        identity_key: claim.identity.as_bytes().to_vec().into(),
        certificate_request: CertificateParams::default().serialize_request(&tls).unwrap().der().to_vec().into(),
        identity_signature: claim.sign(token.id(), &identity).as_bytes().to_vec().into(),
        version: Some(v1::VersionRange { min: 1, max: 1 }),
    };
    (request, tls.serialize_pem())
}

fn hello(member: &Member) -> v1::Hello {
    let profile = v1::Profile { device_class: "x86_64".into(), arch: "x86_64".into(), cores: 2, trains: true, ..Default::default() };
    v1::Hello {
        version: Some(v1::VersionRange { min: 1, max: 1 }),
        ticket: Bytes::new(),
        membership: member.membership.clone(),
        profile: Some(profile),
        status: Bytes::new(),
    }
}

async fn connect(client: &mut NodeClient<Channel>, member: &Member) -> tonic::Streaming<v1::Instruction> {
    let mut line = client.connect(hello(member)).await.unwrap().into_inner();
    let Some(Kind::Welcome(welcome)) = line.message().await.unwrap().unwrap().kind else { panic!("no welcome") };
    assert_eq!((welcome.version, welcome.ticket.len()), (1, 16));
    line
}

async fn collect(mut stream: tonic::Streaming<v1::Chunk>) -> Result<(u64, Vec<u8>), Status> {
    let (mut total, mut bytes) = (None, Vec::new());
    while let Some(chunk) = stream.message().await? {
        total.get_or_insert(chunk.total);
        bytes.extend_from_slice(&chunk.data);
    }
    Ok((total.unwrap(), bytes))
}

#[tokio::test]
async fn a_node_enrols_connects_and_fetches_from_where_it_stopped() {
    let world = World::new(true).await;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let digest = world.state.objects().put(&bytes).unwrap();

    let member = world.enroll("store-1").await;
    let signed: SignedMembership = serde_json::from_slice(&member.membership).unwrap();
    assert_eq!((signed.statement.node.as_str(), signed.statement.labels["ring"].as_str()), ("store-1", "lab"));
    let mut node = world.node(&member).await;
    let fetch = |offset| v1::FetchRequest { digest: digest.as_bytes().to_vec().into(), offset };
    // Certified, but never here before.
    assert!(node.fetch(fetch(0)).await.is_err());
    let mut line = connect(&mut node, &member).await;

    for offset in [0, 1, 300_000, 999_999, 1_000_000] {
        let stream = node.fetch(fetch(offset)).await.unwrap().into_inner();
        let (total, rest) = collect(stream).await.unwrap();
        assert_eq!(total, 1_000_000);
        assert_eq!(Digest::of(&rest), Digest::of(&bytes[offset as usize..]), "from {offset}");
    }
    assert!(node.fetch(fetch(1_000_001)).await.is_err());
    let missing = v1::FetchRequest { digest: Digest::of(b"nothing").as_bytes().to_vec().into(), offset: 0 };
    assert_eq!(node.fetch(missing).await.unwrap_err().code(), Code::InvalidArgument);

    // A fresh certificate for the same name opens a line as well. Nothing before: it may be a clone's.
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let renewed = node.renew(v1::RenewRequest { certificate_request: request.into() }).await.unwrap().into_inner();
    let fresh = Member { certificate: renewed.certificates[0].to_vec().into(), key: key.serialize_pem(), ..member };
    let mut renewed = world.node(&fresh).await;
    assert_eq!(renewed.fetch(fetch(0)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(renewed.report(v1::StatusReport::default()).await.unwrap_err().code(), Code::Unavailable);
    let mut newer = connect(&mut renewed, &fresh).await;
    let stream = renewed.fetch(fetch(999_000)).await.unwrap().into_inner();
    assert_eq!(collect(stream).await.unwrap().1.len(), 1000);
    assert_eq!(node.fetch(fetch(0)).await.unwrap_err().code(), Code::Unavailable, "the older line was replaced");
    assert!(line.message().await.unwrap().is_none());

    // The coordinator says goodbye and then waits for nobody.
    world.shut_down().await;
    let last = newer.message().await.unwrap().and_then(|instruction| instruction.kind);
    assert!(matches!(last, Some(Kind::Goodbye(_))), "{last:?}");
}

#[tokio::test]
async fn a_certificate_opens_only_its_own_doors() {
    let world = World::new(true).await;
    let member = world.enroll("store-1").await;
    let own = || (member.certificate.clone(), member.key.as_str());
    let key = v1::UploadKey { session: vec![0; 32].into(), digest: vec![0; 32].into() };

    let mut nobody = OperatorClient::new(world.channel(None).await.unwrap());
    assert_eq!(nobody.status(v1::ListRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let mut nobody = NodeClient::new(world.channel(None).await.unwrap());
    assert_eq!(nobody.upload_status(key.clone()).await.unwrap_err().code(), Code::Unauthenticated);
    let mut node = OperatorClient::new(world.channel(Some(own())).await.unwrap());
    assert_eq!(node.status(v1::ListRequest {}).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(world.operator().await.status(v1::ListRequest {}).await.is_ok());

    let certificate = std::fs::read(world.deployment.operator_certificate()).unwrap();
    let operator_key = std::fs::read_to_string(world.deployment.operator_key()).unwrap();
    let operator = (CertificateDer::from_pem_slice(&certificate).unwrap(), operator_key.as_str());
    let mut operator = NodeClient::new(world.channel(Some(operator)).await.unwrap());
    assert_eq!(operator.upload_status(key).await.unwrap_err().code(), Code::PermissionDenied);

    // Another authority's certificate does not even get through the handshake.
    let (stranger, _) = Ca::create(&"fleet".parse().unwrap(), now(), HOUR).unwrap();
    let forged = stranger.client(&"spiffe://fleet/operator/operator".parse().unwrap(), now(), HOUR).unwrap();
    let refused = match world.channel(Some((forged.certificate, &forged.key))).await {
        Err(_) => true,
        Ok(channel) => OperatorClient::new(channel).status(v1::ListRequest {}).await.is_err(),
    };
    assert!(refused);
    world.shut_down().await;
}

#[tokio::test]
async fn what_a_node_says_must_be_what_its_certificate_says() {
    let world = World::new(true).await;
    let (first, second) = (world.enroll("store-1").await, world.enroll("store-2").await);
    let mut node = world.node(&first).await;
    let refused = node.connect(hello(&second)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("store-1") && refused.message().contains("store-2"), "{}", refused.message());

    let mut forged: SignedMembership = serde_json::from_slice(&first.membership).unwrap();
    forged.statement.labels.insert("ring".into(), "global".into());
    let forged = v1::Hello { membership: serde_json::to_vec(&forged).unwrap().into(), ..hello(&first) };
    assert_eq!(node.connect(forged).await.unwrap_err().code(), Code::PermissionDenied);

    let future = v1::Hello { version: Some(v1::VersionRange { min: 7, max: 9 }), ..hello(&first) };
    let refused = node.connect(future).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("7–9"), "{}", refused.message());
    drop(connect(&mut node, &first).await);
    world.shut_down().await;
}

#[tokio::test]
async fn a_token_enrols_once() {
    let world = World::new(true).await;
    let token = world.token();
    let (request, _) = application(&token, "store-1");
    // A guessed secret, a changed name: refused, and the token is not spent.
    let guessed: Token = format!("sw1.{}.{}", token.id(), "ab".repeat(32)).parse().unwrap();
    assert_eq!(world.ask(application(&guessed, "store-1").0).await.unwrap_err().code(), Code::PermissionDenied);
    let changed = v1::EnrollRequest { node: "store-2".into(), ..request.clone() };
    assert_eq!(world.ask(changed).await.unwrap_err().code(), Code::PermissionDenied);
    let other = v1::EnrollRequest { population: "elsewhere".into(), ..request.clone() };
    assert_eq!(world.ask(other).await.unwrap_err().code(), Code::PermissionDenied);

    for _ in 0..2 {
        assert!(matches!(world.ask(request.clone()).await.unwrap(), Outcome::Enrolled(_)), "asking again is no second use");
    }
    let again = world.ask(application(&token, "store-3").0).await.unwrap_err();
    assert!(again.message().contains("used already"), "{}", again.message());
    world.shut_down().await;
}

/// The authority's key lies elsewhere: the coordinator relays, and cannot make a member by itself.
#[tokio::test]
async fn the_holder_of_the_authoritys_key_answers_from_elsewhere() {
    let world = World::new(false).await;
    let (request, key) = application(&world.token(), "store-1");
    assert!(matches!(world.ask(request.clone()).await.unwrap(), Outcome::PendingMs(_)));
    assert!(matches!(world.ask(request.clone()).await.unwrap(), Outcome::PendingMs(_)));

    let mut operator = world.operator().await;
    let mut pending = operator.pending_enrollments(v1::ListRequest {}).await.unwrap().into_inner();
    let waiting = pending.message().await.unwrap().unwrap();
    assert!(pending.message().await.unwrap().is_none());
    let forged = v1::PendingEnrollment { node: "store-2".into(), ..waiting.clone() };
    assert!(super::application(&forged).is_err());
    let application = super::application(&waiting).unwrap();
    let membership = world.authority.authorize(&application, now()).unwrap();
    let verdict = |membership: &SignedMembership| v1::AuthorizeRequest {
        request_id: waiting.request_id.clone(),
        verdict: Some(v1::authorize_request::Verdict::Membership(serde_json::to_vec(membership).unwrap().into())),
    };
    let stranger = Key::from_pkcs8(&Key::generate(&SystemRandom::new()).unwrap()).unwrap();
    let forged = membership.statement.clone().sign(&stranger);
    assert_eq!(operator.authorize(verdict(&forged)).await.unwrap_err().code(), Code::PermissionDenied);
    operator.authorize(verdict(&membership)).await.unwrap();

    let Outcome::Enrolled(enrolled) = world.ask(request).await.unwrap() else { panic!("still waiting") };
    let member = member(enrolled, key);
    let mut node = world.node(&member).await;
    drop(connect(&mut node, &member).await);
    world.shut_down().await;
}

#[tokio::test]
async fn an_operators_upload_goes_on_where_it_stopped() {
    let world = World::new(true).await;
    let mut operator = world.operator().await;
    let bytes: Vec<u8> = (0..700_000_u32).map(|i| (i % 253) as u8).collect();
    let digest: Bytes = Digest::of(&bytes).as_bytes().to_vec().into();
    let header = |offset, total| v1::PutRequest {
        part: Some(v1::put_request::Part::Header(v1::PutHeader { digest: digest.clone(), total, offset })),
    };
    let data = |bytes: &[u8]| v1::PutRequest { part: Some(v1::put_request::Part::Data(bytes.to_vec().into())) };
    // Ends too early.
    let part = tokio_stream::iter([header(0, 700_000), data(&bytes[..200_000])]);
    assert!(operator.put(part).await.is_err());
    let key = v1::PutKey { digest: digest.clone() };
    let received = operator.put_status(key.clone()).await.unwrap().into_inner().received;
    assert_eq!(received, 200_000);
    let rest = bytes[200_000..].chunks(sapwood_proto::CHUNK).map(&data);
    let rest: Vec<_> = std::iter::once(header(received, 700_000)).chain(rest).collect();
    operator.put(tokio_stream::iter(rest)).await.unwrap();
    assert_eq!(operator.put_status(key).await.unwrap().into_inner().received, 700_000);
    let stream = operator.get(v1::FetchRequest { digest: digest.clone(), offset: 0 }).await.unwrap().into_inner();
    assert_eq!(collect(stream).await.unwrap(), (700_000, bytes));

    let huge = tokio_stream::iter([header(0, u64::MAX)]);
    assert!(operator.put(huge).await.is_err());
    let headless = tokio_stream::iter([data(b"x")]);
    assert_eq!(operator.put(headless).await.unwrap_err().code(), Code::InvalidArgument);
    world.shut_down().await;
}
