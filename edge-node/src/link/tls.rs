//! A channel to a coordinator: gRPC over HTTP/2 over TLS 1.3, with ring and nothing else.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};

/// What one stream may have in flight: some chunks, so that a transfer never waits for a window.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// What a connection may have in flight: more than a stream, so that a model in transfer does not hold up an order.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// HTTP/2 frames; above the default of 16 KiB, so that a chunk costs few of them.
const FRAME: u32 = 64 * 1024;
/// A peer that answers no ping for so long is gone.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Not an address.
    #[error("{address:?} is no address of a coordinator: {why}; expected \"https://HOST:PORT\" or \"HOST:PORT\"")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// No usable certificate authority.
    #[error("the trust file's coordinator CA cannot be used: {why}")]
    Authority {
        /// What is wrong with it.
        why: String,
    },
    /// No usable client certificate.
    #[error("the client certificate or its key cannot be used: {why}")]
    Credentials {
        /// What is wrong with it.
        why: String,
    },
    /// The peer cannot show who it is, or refuses who we are.
    #[error("{endpoint} did not pass the TLS handshake: {tls}; check the coordinator's address, the trust file and the clocks")]
    Handshake {
        /// Whom we called.
        endpoint: String,
        /// What TLS says.
        tls: rustls::Error,
    },
    /// Nobody answers.
    #[error("{endpoint} cannot be reached: {why}")]
    Unreachable {
        /// Whom we called.
        endpoint: String,
        /// The first cause.
        why: String,
    },
}

/// A client certificate and its private key.
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Credentials {
    /// From DER, leaf first, and PKCS#8.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }

    /// From PEM texts, as an operator's folder holds them.
    ///
    /// # Errors
    /// [`LinkError::Credentials`] if either holds nothing of its kind.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, LinkError> {
        let fault = |e: rustls::pki_types::pem::Error| LinkError::Credentials { why: e.to_string() };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(fault)?;
        if chain.is_empty() {
            return Err(LinkError::Credentials { why: "there is no certificate in the file".to_owned() });
        }
        Ok(Self { chain, key: PrivateKeyDer::from_pem_slice(key).map_err(fault)? })
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

/// Connects to `address`, trusting only the certificate authorities of `ca` (PEM).
///
/// Without `client` the peer learns nothing about us: that is for enrolment.
///
/// # Errors
/// [`LinkError`]; see [`LinkError::is_permanent`] for whether to try again soon.
pub async fn channel(address: &str, ca: &[u8], client: Option<Credentials>) -> Result<Channel, LinkError> {
    let uri = parse(address)?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let name = ServerName::try_from(host.clone()).map_err(|e| LinkError::Address { address: address.to_owned(), why: e.to_string() })?;
    let tls = TlsConnector::from(Arc::new(client_config(ca, client)?));
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, name, host) = (tls.clone(), name.clone(), host.clone());
        async move {
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    Endpoint::from(uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|e| match tls_fault(&e) {
            Some(tls) => LinkError::Handshake { endpoint: uri.to_string(), tls },
            None => LinkError::Unreachable { endpoint: uri.to_string(), why: root_cause(&e) },
        })
}

impl LinkError {
    /// Whether only a person can help, so that trying again soon is no use.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Unreachable { .. })
    }
}

fn parse(address: &str) -> Result<Uri, LinkError> {
    let fault = |why: &str| LinkError::Address { address: address.to_owned(), why: why.to_owned() };
    let full = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let uri: Uri = full.parse().map_err(|e: tonic::codegen::http::uri::InvalidUri| fault(&e.to_string()))?;
    if uri.scheme_str() != Some("https") {
        return Err(fault("only https is spoken"));
    }
    if uri.host().is_none_or(str::is_empty) || uri.path().len() > 1 || uri.query().is_some() {
        return Err(fault("it must be a host and a port and nothing else"));
    }
    Ok(uri)
}

/// TLS 1.3 with ring, said explicitly: no process-wide default is ever guessed.
fn client_config(ca: &[u8], client: Option<Credentials>) -> Result<ClientConfig, LinkError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|e| LinkError::Authority { why: e.to_string() })?;
        roots.add(certificate).map_err(|e| LinkError::Authority { why: e.to_string() })?;
    }
    if roots.is_empty() {
        return Err(LinkError::Authority { why: "there is no certificate in it".to_owned() });
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| LinkError::Authority { why: e.to_string() })?
        .with_root_certificates(roots);
    let mut config = match client {
        Some(Credentials { chain, key }) => {
            builder.with_client_auth_cert(chain, key).map_err(|e| LinkError::Credentials { why: e.to_string() })?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The TLS error in a chain of causes. `io::Error` hides what it wraps from `source`, so that is looked into by hand.
fn tls_fault(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls.clone());
        }
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            let inner: &(dyn std::error::Error + 'static) = inner;
            if let Some(tls) = tls_fault(inner) {
                return Some(tls);
            }
        }
        next = error.source();
    }
    None
}

/// The alert with which the peer ended an established connection. Between TLS and gRPC, h2 keeps of an error its kind and
/// its words only, so the words are looked at: those of [`rustls::Error::AlertReceived`].
pub(crate) fn alert(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.to_string()).filter(|words| words.starts_with("received fatal alert"));
        }
        next = error.source();
    }
    None
}

/// The last cause of a chain: tonic's own first word is only "transport error".
fn root_cause(error: &tonic::transport::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
