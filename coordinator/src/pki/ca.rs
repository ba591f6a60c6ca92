//! The TLS certificate authority: P-256, one level deep, short-lived leaves.
//!
//! It lies with the coordinator, because certificates rotate often. That is no power to enrol: a node is a member by
//! the enrolment authority's statement, and its TLS certificate only carries the name in it.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use sapwood_protocol::{PopulationId, Timestamp};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};
use zeroize::Zeroizing;

use super::{Identity, PkiError, Role};

/// Clocks of honest machines differ by no more.
const SKEW: Duration = Duration::from_secs(300);
/// A request for a P-256 key takes some 200 bytes.
const MAX_REQUEST: usize = 4096;
/// id-ecPublicKey, RFC 5480 §2.1.1.
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
/// AlgorithmIdentifier of ecdsa-with-SHA256, RFC 5758 §3.2.
const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// secp256r1, RFC 5480 §2.1.1.1.
const P256: &str = "1.2.840.10045.3.1.7";

/// A PKCS#10 request that was checked: it asks for a P-256 key and is signed with it. Whatever else it says is ignored.
pub struct CertificateRequest {
    key: SubjectPublicKeyInfo,
    spki: Vec<u8>,
}

impl CertificateRequest {
    /// Checks the request in DER.
    pub fn parse(der: &[u8]) -> Result<Self, PkiError> {
        if der.len() > MAX_REQUEST {
            return Err(PkiError::request(format_args!("it has {} bytes, at most {MAX_REQUEST} are read", der.len())));
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(PkiError::request)?;
        if !rest.is_empty() {
            return Err(PkiError::request("bytes after its end"));
        }
        let subject = &request.certification_request_info.subject_pki;
        let curve = subject.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
        if subject.algorithm.algorithm.to_id_string() != EC_PUBLIC_KEY || curve.as_deref() != Some(P256) {
            return Err(PkiError::request("its key is not on the curve P-256"));
        }
        // The algorithm is not among the signed bytes, and the parser takes other tags for it.
        let signed = request.certification_request_info.raw;
        let after = (signed.as_ptr() as usize - der.as_ptr() as usize) + signed.len();
        // Nor is the number of unused bits of the signature's bit string: DER has none here.
        let signature = der[after..].strip_prefix(&ECDSA_WITH_SHA256[..]);
        if !matches!(signature, Some([0x03, _, 0, ..])) {
            return Err(PkiError::request("it is not signed by ECDSA with SHA-256"));
        }
        request.verify_signature().map_err(|_| PkiError::request("it is not signed with the key that it asks for"))?;
        let spki = subject.raw.to_vec();
        let key = SubjectPublicKeyInfo::from_der(&spki).map_err(PkiError::request)?;
        Ok(Self { key, spki })
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn public_key(&self) -> &[u8] {
        &self.spki
    }
}

/// Signs TLS certificates.
pub struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A key made here, and its certificate.
pub struct Issued {
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// PEM of the certificate.
    pub pem: String,
    /// PEM of the key, PKCS#8.
    pub key: Zeroizing<String>,
}

impl Ca {
    /// A new authority, and its files' contents.
    pub fn create(population: &PopulationId, now: Timestamp, lifetime: Duration) -> Result<(Self, Issued), PkiError> {
        let key = new_key()?;
        let mut params = params(now, lifetime, format!("Sapwood TLS authority of {population}"))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(&key).map_err(PkiError::generate("the TLS authority's certificate"))?;
        let issued = Issued { certificate: made.der().clone(), pem: made.pem(), key: Zeroizing::new(key.serialize_pem()) };
        Ok((Self { certificate: made.into(), issuer: Issuer::new(params, key) }, issued))
    }

    /// From the files that [`Ca::create`] made.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let unusable = |why: &dyn ToString| PkiError::unusable("the TLS authority", why.to_string());
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|e| unusable(&e))?;
        let key = load_key(key_pem)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|e| unusable(&e))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(unusable(&"its key is not the one in its certificate"));
        }
        if !parsed.is_ca() {
            return Err(unusable(&"its certificate may sign no others"));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|e| unusable(&e))?;
        Ok(Self { certificate: certificate.clone(), issuer })
    }

    /// The authority's own certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A key and certificate for a server that is reached by these DNS names and addresses.
    pub fn server(&self, who: &Identity, names: &[String], now: Timestamp, lifetime: Duration) -> Result<Issued, PkiError> {
        let key = new_key()?;
        self.issue(who, names, &key, now, lifetime).map(|made| Issued {
            certificate: made.der().clone(),
            pem: made.pem(),
            key: Zeroizing::new(key.serialize_pem()),
        })
    }

    /// A key and certificate for a client.
    pub fn client(&self, who: &Identity, now: Timestamp, lifetime: Duration) -> Result<Issued, PkiError> {
        self.server(who, &[], now, lifetime)
    }

    /// A certificate for the key of a checked request.
    pub fn certify(
        &self,
        who: &Identity,
        request: &CertificateRequest,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, PkiError> {
        self.issue(who, &[], &request.key, now, lifetime).map(Into::into)
    }

    fn issue(
        &self,
        who: &Identity,
        names: &[String],
        key: &impl PublicKeyData,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<rcgen::Certificate, PkiError> {
        let wrong = PkiError::generate("a certificate");
        let mut params = params(now, lifetime, common_name(who))?;
        let uri = who.to_string().try_into().map_err(PkiError::generate("a certificate"))?;
        params.subject_alt_names.push(SanType::URI(uri));
        let names = CertificateParams::new(names).map_err(PkiError::generate("a certificate"))?;
        params.subject_alt_names.extend(names.subject_alt_names);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A node's certificate is none for a server: no node can pose as the coordinator.
        params.extended_key_usages = vec![match who.role {
            Role::Coordinator => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Node(_) | Role::Operator(_) => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.signed_by(key, &self.issuer).map_err(wrong)
    }
}

fn common_name(who: &Identity) -> String {
    match &who.role {
        Role::Coordinator => "coordinator".to_owned(),
        Role::Node(name) => name.to_string(),
        Role::Operator(name) => name.to_string(),
    }
}

/// What all certificates have in common. The serial number is 16 random bytes (RFC 5280 §4.1.2.2: positive, at most 20).
fn params(now: Timestamp, lifetime: Duration, name: String) -> Result<CertificateParams, PkiError> {
    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| PkiError::Generate { what: "a serial number", why: "the system gives no random bytes".to_owned() })?;
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_millis((now - SKEW).millis());
    // 9999-12-31T23:59:59Z, the last moment that X.509 can say.
    const LAST: u64 = 253_402_300_799_000;
    params.not_after = epoch + Duration::from_millis((now + lifetime).millis().min(LAST));
    Ok(params)
}

pub(crate) fn new_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PkiError::generate("a P-256 key"))
}

pub(crate) fn load_key(pem: &str) -> Result<KeyPair, PkiError> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| PkiError::unusable("a private key", e))?;
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map_err(|e| PkiError::unusable("a private key", e))
}
