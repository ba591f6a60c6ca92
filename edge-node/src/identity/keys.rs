//! The TLS key and its certificate.

use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use sapwood_protocol::{Fault, NodeId, Timestamp, fault::Misbehaviour, release::pem};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::link::Credentials;

/// A P-256 key without a certificate yet.
pub(super) struct TlsKey(KeyPair);

impl TlsKey {
    pub(super) fn generate() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self)
    }
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, rcgen::Error> {
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ECDSA_P256_SHA256).map(Self)
    }
    pub(super) fn pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }
    /// SubjectPublicKeyInfo, DER.
    pub(super) fn public(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }
    /// PKCS#10, DER. The authority decides what the certificate says; the name is for its eyes.
    pub(super) fn request(&self, node: &NodeId) -> Result<Vec<u8>, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    /// Takes the certificates that were issued for this key, leaf first.
    pub(super) fn certified(self, certificates: &[impl AsRef<[u8]>]) -> Result<Certified, Fault> {
        let chain: Vec<_> = certificates.iter().map(|der| CertificateDer::from(der.as_ref().to_vec())).collect();
        Certified::new(chain, Zeroizing::new(self.0.serialize_der()))
    }
}

/// A TLS key with its certificates.
pub struct Certified {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Certified {
    /// Checks that the leaf is for this key.
    fn new(chain: Vec<CertificateDer<'static>>, key: Zeroizing<Vec<u8>>) -> Result<Self, Fault> {
        let fault = |why: String| Fault::from(Misbehaviour::Malformed { what: "the TLS certificate", why });
        let leaf = chain.first().ok_or_else(|| fault("there is none".to_owned()))?;
        let (rest, parsed) = X509Certificate::from_der(leaf).map_err(|e| fault(e.to_string()))?;
        if !rest.is_empty() {
            return Err(fault("bytes follow it".to_owned()));
        }
        let public = TlsKey::from_pkcs8(&key).map_err(|e| fault(e.to_string()))?.public();
        if parsed.public_key().raw != public {
            return Err(fault("it is for another key".to_owned()));
        }
        let at =
            |time: x509_parser::time::ASN1Time| Timestamp::from_millis(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000));
        let (not_before, not_after) = (at(parsed.validity().not_before), at(parsed.validity().not_after));
        Ok(Self { chain, key, not_before, not_after })
    }

    /// When it is time for a new one: after two thirds of its life.
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.since(self.not_before);
        self.not_before + Duration::from_secs(life.as_secs() / 3 * 2)
    }
    /// When it ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub(super) fn credentials(&self) -> Credentials {
        Credentials::new(self.chain.clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.to_vec())))
    }

    /// Key and certificates in one text: one file, so that both change in one rename.
    pub(super) fn to_pem(&self) -> Zeroizing<String> {
        let mut text = pem::encode("PRIVATE KEY", &self.key);
        for certificate in &self.chain {
            text.push_str(&pem::encode("CERTIFICATE", certificate));
        }
        text
    }

    pub(super) fn from_pem(text: &[u8]) -> Result<Self, String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|e| e.to_string())?;
        Self::new(chain, Zeroizing::new(key.secret_pkcs8_der().to_vec())).map_err(|fault| fault.to_string())
    }
}
