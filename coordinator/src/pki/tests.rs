//! Certificates as rustls sees them, in memory.

use std::{io, sync::Arc, time::Duration};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConnection,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use sapwood_protocol::Timestamp;

use super::{ca::new_key, *};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// Certificates are judged by rustls on the real clock.
pub(crate) fn now() -> Timestamp {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(elapsed.as_millis().try_into().unwrap())
}

pub(crate) fn identity(uri: &str) -> Identity {
    uri.parse().unwrap()
}

fn ca() -> Ca {
    Ca::create(&"fleet".parse().unwrap(), now(), 10 * DAY).unwrap().0
}

fn server(ca: &Ca, issued: &Issued) -> Arc<rustls::ServerConfig> {
    Arc::new(server_config(ca, Arc::new(ServerCertificate::new(issued).unwrap())).unwrap())
}

fn client(ca: &Ca, own: Option<(CertificateDer<'static>, &str)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
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
    config
}

/// Both ends talk until neither has more to say; returns what the server knows of the client.
fn shake(server: Arc<rustls::ServerConfig>, client: ClientConfig, name: &str) -> Result<Option<Certified>, String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..10 {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let leaf = server.peer_certificates().and_then(|chain| chain.first());
    leaf.map(|leaf| Certified::read(leaf).map_err(|e| e.to_string())).transpose()
}

fn pass<A, B>(
    from: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<A>>,
    to: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<B>>,
) -> Result<(), String> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = io::Cursor::new(wire);
    while wire.position() < wire.get_ref().len() as u64 {
        to.read_tls(&mut wire).unwrap();
        to.process_new_packets().map_err(|e| e.to_string())?;
    }
    Ok(())
}

const NODE: &str = "spiffe://fleet/node/store-1";
const COORDINATOR: &str = "spiffe://fleet/coordinator";

fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

/// A node's key never leaves it: it sends a request, gets a certificate back, and both ends know each other by it.
#[test]
fn a_certified_node_and_its_coordinator_shake_hands() {
    let ca = ca();
    let shown = ca.server(&identity(COORDINATOR), &["localhost".into(), "127.0.0.1".into()], now(), DAY).unwrap();
    let key = new_key().unwrap();
    let request = CertificateRequest::parse(&request(&key)).unwrap();
    let certificate = ca.certify(&identity(NODE), &request, now(), DAY).unwrap();
    for name in ["localhost", "127.0.0.1"] {
        let own = Some((certificate.clone(), &*key.serialize_pem()));
        let seen = shake(server(&ca, &shown), client(&ca, own), name).unwrap().unwrap();
        assert_eq!(seen.identity, identity(NODE));
        assert_eq!(seen.public_key, request.public_key());
        assert!(seen.not_before < now() && now() < seen.renew_at() && seen.renew_at() < seen.not_after);
    }
    assert!(shake(server(&ca, &shown), client(&ca, None), "elsewhere").unwrap_err().contains("name"));
}

#[test]
fn who_has_no_certificate_yet_may_knock() {
    let ca = ca();
    let shown = ca.server(&identity(COORDINATOR), &["localhost".into()], now(), DAY).unwrap();
    assert_eq!(shake(server(&ca, &shown), client(&ca, None), "localhost").unwrap(), None);
}

#[test]
fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let (ours, theirs) = (ca(), ca());
    let shown = ours.server(&identity(COORDINATOR), &["localhost".into()], now(), DAY).unwrap();
    let foreign = theirs.client(&identity(NODE), now(), DAY).unwrap();
    let own = Some((foreign.certificate, &**foreign.key));
    assert!(shake(server(&ours, &shown), client(&ours, own), "localhost").is_err());
    assert!(shake(server(&ours, &shown), client(&theirs, None), "localhost").is_err());
}

#[test]
fn an_expired_certificate_is_refused_on_both_sides() {
    let ca = ca();
    let then = now() - 3 * DAY;
    let fresh = ca.server(&identity(COORDINATOR), &["localhost".into()], now(), DAY).unwrap();
    let stale = ca.client(&identity(NODE), then, DAY).unwrap();
    let why = shake(server(&ca, &fresh), client(&ca, Some((stale.certificate, &stale.key))), "localhost").unwrap_err();
    assert!(why.contains("xpired"), "{why}");
    let stale = ca.server(&identity(COORDINATOR), &["localhost".into()], then, DAY).unwrap();
    let why = shake(server(&ca, &stale), client(&ca, None), "localhost").unwrap_err();
    assert!(why.contains("xpired"), "{why}");
}

/// A node's certificate is none for a server, and the coordinator's is none for a client.
#[test]
fn a_certificate_serves_one_role() {
    let ca = ca();
    let shown = ca.server(&identity(COORDINATOR), &["localhost".into()], now(), DAY).unwrap();
    let posing = ca.server(&identity(NODE), &["localhost".into()], now(), DAY).unwrap();
    assert!(shake(server(&ca, &posing), client(&ca, None), "localhost").is_err());
    let own = Some((shown.certificate.clone(), &**shown.key));
    assert!(shake(server(&ca, &shown), client(&ca, own), "localhost").is_err());
}

/// A TLS 1.2 client hello, as OpenSSL 3 writes it with `-tls1_2`, shortened to one suite.
#[test]
fn tls_1_2_is_refused() {
    let ca = ca();
    let shown = ca.server(&identity(COORDINATOR), &["localhost".into()], now(), DAY).unwrap();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]); // random
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, ECDHE-ECDSA-AES128-GCM-SHA256, no compression
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3]; // P-256, points, ECDSA-P256-SHA256
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    let mut server = ServerConnection::new(server(&ca, &shown)).unwrap();
    server.read_tls(&mut io::Cursor::new(record)).unwrap();
    let refused = server.process_new_packets().unwrap_err();
    assert!(matches!(refused, rustls::Error::PeerIncompatible(_)), "{refused:?}");
}

#[test]
fn a_certificate_is_replaced_two_thirds_into_its_life() {
    let ca = ca();
    let names = ["localhost".to_owned()];
    let first = ca.server(&identity(COORDINATOR), &names, now(), DAY).unwrap();
    let shown = ServerCertificate::new(&first).unwrap();
    assert!(!shown.renew(&ca, &identity(COORDINATOR), &names, now(), DAY).unwrap());
    let later = now() + DAY * 2 / 3;
    assert!(shown.renew(&ca, &identity(COORDINATOR), &names, later, DAY).unwrap());
    assert!(shown.renew_at() > later);
}

#[test]
fn forged_and_foreign_requests_are_refused() {
    let key = new_key().unwrap();
    let good = request(&key);
    assert!(CertificateRequest::parse(&good).is_ok());
    // Every byte counts: the key, the subject, the signature.
    for at in 0..good.len() {
        let mut forged = good.clone();
        forged[at] ^= 1;
        assert!(CertificateRequest::parse(&forged).is_err(), "byte {at}");
    }
    let mut longer = good;
    longer.push(0);
    assert!(CertificateRequest::parse(&longer).is_err());
    assert!(CertificateRequest::parse(&[]).is_err());
    assert!(CertificateRequest::parse(&vec![0x30; 5000]).is_err());
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
        let other = KeyPair::generate_for(algorithm).unwrap();
        assert!(matches!(CertificateRequest::parse(&request(&other)), Err(PkiError::Request { .. })));
    }
}

/// What a request says about its subject has no effect: the certificate names whom the authority named.
#[test]
fn a_request_cannot_choose_its_name() {
    let ca = ca();
    let key = new_key().unwrap();
    let mut params = CertificateParams::new(["coordinator.example".to_owned()]).unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI("spiffe://fleet/operator/root".try_into().unwrap()));
    let asked = params.serialize_request(&key).unwrap();
    let request = CertificateRequest::parse(asked.der()).unwrap();
    let certificate = ca.certify(&identity(NODE), &request, now(), DAY).unwrap();
    assert_eq!(Certified::read(&certificate).unwrap().identity, identity(NODE));
    let text = String::from_utf8_lossy(&certificate).into_owned();
    assert!(!text.contains("coordinator.example") && !text.contains("root"));
}

#[test]
fn serial_numbers_are_random_and_positive() {
    let ca = ca();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let issued = ca.client(&identity(NODE), now(), DAY).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
        assert_eq!(parsed.raw_serial().len(), 16);
        assert_eq!(parsed.raw_serial()[0] & 0x80, 0);
        assert!(seen.insert(parsed.raw_serial().to_vec()));
    }
}

#[test]
fn an_authority_survives_its_files() {
    let (first, files) = Ca::create(&"fleet".parse().unwrap(), now(), 10 * DAY).unwrap();
    let second = Ca::load(&files.pem, &files.key).unwrap();
    let shown = second.server(&identity(COORDINATOR), &["localhost".into()], now(), DAY).unwrap();
    assert!(shake(server(&second, &shown), client(&first, None), "localhost").is_ok());
    let (_, other) = Ca::create(&"fleet".parse().unwrap(), now(), 10 * DAY).unwrap();
    assert!(matches!(Ca::load(&files.pem, &other.key), Err(PkiError::Unusable { .. })));
    let leaf = first.client(&identity(NODE), now(), DAY).unwrap();
    assert!(matches!(Ca::load(&leaf.pem, &leaf.key), Err(PkiError::Unusable { .. })));
}

mod authority {
    use std::collections::BTreeMap;

    use ring::rand::SystemRandom;
    use sapwood_protocol::{
        Fault,
        fault::{Expiry, Misbehaviour, Misuse},
        membership::{Claim, Identity as Key, Token},
    };

    use super::*;

    struct Applicant {
        key: Key,
        application: Application,
    }

    fn applicant(token: &Token, node: &str) -> Applicant {
        let key = Key::from_pkcs8(&Key::generate(&SystemRandom::new()).unwrap()).unwrap();
        let application = apply(token, node, &key);
        Applicant { key, application }
    }

    fn apply(token: &Token, node: &str, key: &Key) -> Application {
        let claim =
            Claim { population: "fleet".parse().unwrap(), node: node.parse().unwrap(), identity: key.key(), tls: b"some key".to_vec() };
        Application { token: token.id().clone(), proof: token.prove(&claim), signature: claim.sign(token.id(), key), claim }
    }

    fn terms(node: Option<&str>) -> TokenTerms {
        let labels = BTreeMap::from([("ring".to_owned(), "canary".to_owned())]);
        TokenTerms { labels, node: node.map(|node| node.parse().unwrap()), lifetime: DAY }
    }

    fn found_authority() -> (tempfile::TempDir, Authority) {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(&folder.path().join("authority"), &"fleet".parse().unwrap(), 10 * DAY).unwrap();
        (folder, authority)
    }

    fn refusal(result: Result<sapwood_protocol::membership::SignedMembership, PkiError>) -> Fault {
        match result {
            Err(PkiError::Refused(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_makes_one_member_once() {
        let (folder, authority) = found_authority();
        let token = authority.mint(&terms(None), now()).unwrap();
        assert_eq!(authority.tokens().unwrap().len(), 1);
        let first = applicant(&token, "store-1");
        let membership = authority.authorize(&first.application, now()).unwrap();
        let statement = membership.verify(&authority.key(), authority.population(), now()).unwrap();
        assert_eq!((statement.node.as_str(), statement.labels["ring"].as_str()), ("store-1", "canary"));
        assert_eq!(statement.identity, first.key.key());
        assert!(authority.tokens().unwrap().is_empty());
        // Asked again, also by another process and after the token's end: the same answer.
        let reopened = Authority::open(&folder.path().join("authority")).unwrap();
        assert_eq!(reopened.authorize(&first.application, now() + 2 * DAY).unwrap(), membership);
        // Another application under the same token.
        for node in ["store-1", "store-2"] {
            let second = applicant(&token, node);
            let fault = refusal(reopened.authorize(&second.application, now()));
            assert!(matches!(fault, Fault::PeerMisbehaved(Misbehaviour::TokenReused { .. })), "{fault}");
        }
    }

    #[test]
    fn expired_unknown_and_forged_tokens_are_refused() {
        let (_folder, authority) = found_authority();
        let token = authority.mint(&terms(None), now()).unwrap();
        let good = applicant(&token, "store-1").application;
        let fault = refusal(authority.authorize(&good, now() + DAY));
        assert!(matches!(fault, Fault::Expired(Expiry::Token { .. })), "{fault}");

        let (_other_folder, other) = found_authority();
        let unknown = other.mint(&terms(None), now()).unwrap();
        let fault = refusal(authority.authorize(&applicant(&unknown, "store-1").application, now()));
        assert!(matches!(fault, Fault::Misuse(Misuse::State { .. })), "{fault}");

        // The name of a good token with another secret; a claim changed after the proof; another's identity.
        let guessed: Token = format!("sw1.{}.{}", token.id(), "ab".repeat(32)).parse().unwrap();
        let mut changed = good.clone();
        changed.claim.node = "store-2".parse().unwrap();
        let stranger = Key::from_pkcs8(&Key::generate(&SystemRandom::new()).unwrap()).unwrap();
        let mut stolen = good.clone();
        stolen.signature = stolen.claim.sign(token.id(), &stranger);
        let mut elsewhere = good.clone();
        elsewhere.claim.population = "other".parse().unwrap();
        for forged in [applicant(&guessed, "store-1").application, changed, stolen, elsewhere] {
            assert!(matches!(refusal(authority.authorize(&forged, now())), Fault::PeerMisbehaved(_)));
        }
        // None of this has spent the token.
        assert!(authority.authorize(&good, now()).is_ok());
    }

    #[test]
    fn a_name_that_is_taken_needs_a_token_of_its_own() {
        let (_folder, authority) = found_authority();
        let mint = |node| authority.mint(&terms(node), now()).unwrap();
        let first = applicant(&mint(None), "store-1");
        authority.authorize(&first.application, now()).unwrap();
        let fault = refusal(authority.authorize(&applicant(&mint(None), "store-1").application, now()));
        assert!(fault.to_string().contains("store-1"), "{fault}");
        let named = mint(Some("store-1"));
        assert!(authority.authorize(&applicant(&named, "store-2").application, now()).is_err());
        let second = applicant(&named, "store-1");
        authority.authorize(&second.application, now()).unwrap();
        let member = authority.member(&"store-1".parse().unwrap()).unwrap().unwrap();
        assert_eq!(member.statement.identity, second.key.key());
    }

    /// Killed right after the token was spent: what follows from it is done at the next asking.
    #[test]
    fn a_crash_after_spending_loses_nothing() {
        let (folder, authority) = found_authority();
        let token = authority.mint(&terms(None), now()).unwrap();
        let tokens = folder.path().join("authority/tokens");
        let minted = std::fs::read(tokens.join(format!("{}.json", token.id()))).unwrap();
        let first = applicant(&token, "store-1").application;
        let membership = authority.authorize(&first, now()).unwrap();
        std::fs::write(tokens.join(format!("{}.json", token.id())), minted).unwrap();
        std::fs::remove_file(folder.path().join("authority/members/store-1.json")).unwrap();
        assert!(authority.authorize(&applicant(&token, "store-2").application, now()).is_err());
        assert_eq!(authority.authorize(&first, now()).unwrap(), membership);
        assert_eq!(authority.member(&"store-1".parse().unwrap()).unwrap(), Some(membership));
        assert!(authority.tokens().unwrap().is_empty());
    }
}

mod founding {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

    use sapwood_protocol::{
        release::{SigningKey, VerifyingKey},
        trust::TrustFile,
    };

    use super::*;

    fn options(population: &str) -> FoundOptions {
        FoundOptions::local(population.parse().unwrap(), "127.0.0.1:7443".parse().unwrap())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn snapshot(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push((path.clone(), fs::read(&path).unwrap())) }
            }
        }
        files.sort();
        files
    }

    #[test]
    fn a_deployment_is_founded_once_and_its_secrets_are_private() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("fleet");
        let made = found(&dir, &options("fleet"), now()).unwrap();
        assert!(made.fresh);
        for (path, secret, _) in CONTENTS {
            let expected = if path.ends_with('/') {
                0o700
            } else if *secret {
                0o600
            } else {
                0o644
            };
            assert_eq!(mode(&dir.join(path)), expected, "{path}");
        }
        for folder in ["", "tls", "release", "operator", "authority/tokens"] {
            assert_eq!(mode(&dir.join(folder)), 0o700, "{folder}");
        }
        assert_eq!(mode(&dir.join("authority/key.p8")), 0o600);

        let trust = TrustFile::parse(&fs::read_to_string(made.trust()).unwrap()).unwrap();
        let authority = Authority::open(&made.authority()).unwrap();
        assert_eq!((&trust.authority, &trust.population), (&authority.key(), authority.population()));
        let key = SigningKey::from_pkcs8(&fs::read(made.release_key()).unwrap(), &ring::rand::SystemRandom::new()).unwrap();
        assert_eq!(trust.release.keys, [key.verifying_key()]);
        assert_eq!(VerifyingKey::from_pem(&fs::read_to_string(made.release_public()).unwrap()).unwrap(), key.verifying_key());

        let before = snapshot(&dir);
        assert!(!found(&dir, &options("fleet"), now()).unwrap().fresh);
        assert!(matches!(found(&dir, &options("other"), now()), Err(PkiError::OtherPopulation { .. })));
        assert_eq!(snapshot(&dir), before);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "no draft stays behind");
    }

    #[test]
    fn a_folder_with_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(found(dir.path(), &options("fleet"), now()).unwrap().fresh, "an empty folder will do");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        assert!(matches!(found(dir.path(), &options("fleet"), now()), Err(PkiError::Occupied { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// A foreign tool agrees: the chain, the purposes, the names, the keys.
    #[test]
    fn openssl_verifies_the_chain() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("fleet");
        found(&dir, &options("fleet"), now()).unwrap();
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).current_dir(&dir).output().expect("openssl is installed");
            (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let verify = |purpose: &str, file: &str| openssl(&["verify", "-x509_strict", "-CAfile", "tls/ca.pem", "-purpose", purpose, file]).0;
        assert!(verify("sslserver", "tls/coordinator.pem"));
        assert!(verify("sslclient", "operator/cert.pem"));
        assert!(!verify("sslclient", "tls/coordinator.pem"));
        assert!(!verify("sslserver", "operator/cert.pem"));
        let (_, text) = openssl(&["x509", "-in", "tls/coordinator.pem", "-noout", "-text"]);
        for part in ["URI:spiffe://fleet/coordinator", "DNS:localhost", "IP Address:127.0.0.1", "prime256v1"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(openssl(&["pkey", "-in", "operator/key.pem", "-noout"]).0);
        assert!(openssl(&["pkey", "-inform", "DER", "-in", "release/key.p8", "-noout"]).0);
    }
}
