//! TLS 1.3 of the coordinator: ring's provider, given explicitly, and a certificate that replaces itself.

use std::{
    fmt,
    sync::{Arc, RwLock},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use sapwood_protocol::Timestamp;

use super::{Ca, Certified, Identity, Issued, PkiError};

/// The certificate that the coordinator shows. It can be replaced while connections come in.
pub struct ServerCertificate {
    provider: Arc<CryptoProvider>,
    current: RwLock<(Arc<CertifiedKey>, Timestamp)>,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("renew_at", &self.renew_at()).finish_non_exhaustive()
    }
}

impl ServerCertificate {
    /// Shows `issued` from the first connection on.
    pub fn new(issued: &Issued) -> Result<Self, PkiError> {
        let provider = Arc::new(ring::default_provider());
        let current = RwLock::new(certified(&provider, issued)?);
        Ok(Self { provider, current })
    }

    /// Shows `issued` to every connection from now on.
    pub fn replace(&self, issued: &Issued) -> Result<(), PkiError> {
        let next = certified(&self.provider, issued)?;
        *self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = next;
        Ok(())
    }

    /// When [`ServerCertificate::replace`] is due: two thirds into the certificate's life.
    pub fn renew_at(&self) -> Timestamp {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).1
    }

    /// Replaces the certificate if that is due; says whether it did.
    pub fn renew(&self, ca: &Ca, who: &Identity, names: &[String], now: Timestamp, lifetime: Duration) -> Result<bool, PkiError> {
        if now < self.renew_at() {
            return Ok(false);
        }
        self.replace(&ca.server(who, names, now, lifetime)?)?;
        Ok(true)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).0.clone())
    }
}

fn certified(provider: &CryptoProvider, issued: &Issued) -> Result<(Arc<CertifiedKey>, Timestamp), PkiError> {
    let wrong = |why: &dyn ToString| PkiError::unusable("the coordinator's certificate", why.to_string());
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).map_err(|e| wrong(&e))?;
    let chain = vec![issued.certificate.clone()];
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|e| wrong(&e))?;
    Ok((Arc::new(certified), Certified::read(&issued.certificate)?.renew_at()))
}

/// The server's side of TLS. A client certificate may be left out (a machine that enrols has none); one that is shown
/// must be signed by `ca`. What a caller may do is decided by each service.
pub fn server_config(ca: &Ca, certificate: Arc<ServerCertificate>) -> Result<ServerConfig, PkiError> {
    let wrong = |why: &dyn ToString| PkiError::unusable("the TLS authority", why.to_string());
    let provider = certificate.provider.clone();
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone()).map_err(|e| wrong(&e))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| wrong(&e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| wrong(&e))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry a client certificate past its end.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
