//! A real process: files, keys, a socket, and a bounded way down.

use std::{
    fs::{self, File, TryLockError},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use sapwood_protocol::{DeviceClass, Secrets, release::SigningKey, trust::TrustFile};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::{CoordinatorError, Limits, Parts, State};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    grpc::{self, Desk, Doors},
    objects::Objects,
    pki::{Authority, Ca, Identity, Issued, Role, ServerCertificate, server_config},
    release::{Candidates, CandidatesOptions, Probe},
    store::{SqliteStore, Store},
};

/// How often it is looked whether the certificate is due for renewal.
const RENEWAL: Duration = Duration::from_secs(3600);

/// Runs a coordinator until `shutdown`: then it accepts no more, says goodbye to its nodes, lets the calls under way finish,
/// commits what is decided, and gives its leases back.
///
/// `ready` is called once, with the address on which it listens.
///
/// # Errors
/// If it cannot start. What goes wrong later is answered to whoever asked for it.
pub async fn serve(config: Config, ready: impl FnOnce(SocketAddr), shutdown: impl Future<Output = ()>) -> Result<(), CoordinatorError> {
    fs::create_dir_all(&config.data_dir).map_err(|error| file(&config.data_dir, &error))?;
    let _alone = alone(&config.data_dir)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);

    // Keys first: what cannot be used is said before anything is written.
    let ca = ca(&config)?;
    let trust = trust(&config)?;
    let authority = config.keys.authority.as_deref().map(Authority::open).transpose()?.map(Arc::new);
    let who = Identity { population: config.population.clone(), role: Role::Coordinator };
    let certificate = Arc::new(ServerCertificate::new(&shown(&config)?)?);
    certificate.renew(&ca, &who, &config.public_names, clock.now(), config.certificates.coordinator)?;
    let tls = server_config(&ca, Arc::clone(&certificate))?;
    let work = Arc::new(work(&config)?);

    let store = Arc::new(SqliteStore::open(&config.data_dir.join("coordinator.db")).await?);
    let objects = Objects::open(&config.data_dir)?;
    let listener = TcpListener::bind(config.listen).await.map_err(|source| listen(&config, source))?;
    let address = listener.local_addr().map_err(|source| listen(&config, source))?;
    let limits = Limits { upload_memory: config.limits.upload_memory };
    let (budgets, restored) = (config.budgets.clone(), config.restored);
    let parts =
        Parts { store: Arc::clone(&store) as Arc<dyn Store>, objects, clock: Arc::clone(&clock), work, secrets, limits, budgets, restored };
    let state = State::start(parts).await?;

    let renewing = (Arc::clone(&certificate), self::ca(&config)?, config.public_names.clone(), Arc::clone(&clock));
    let lifetime = config.certificates.coordinator;
    let life = state.life().clone();
    state.life().spawn(async move {
        let (certificate, ca, names, clock) = renewing;
        loop {
            tokio::select! {
                () = life.stopping() => return Ok(()),
                () = tokio::time::sleep(RENEWAL) => {}
            }
            match certificate.renew(&ca, &who, &names, clock.now(), lifetime) {
                Ok(true) => tracing::info!("the coordinator's certificate was renewed"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the coordinator's certificate could not be renewed"),
            }
        }
    });

    let desk = Arc::new(Desk { trust, ca, authority, lifetime: config.certificates.node });
    let doors = Doors { connections: config.limits.connections, ..Doors::default() };
    tracing::info!(%address, population = %config.population, "listening");
    ready(address);

    let stopping = state.life().clone();
    let served = grpc::serve(listener, tls, doors, state.clone(), desk, async move { stopping.stopping().await });
    let mut served = std::pin::pin!(served);
    let early = tokio::select! {
        outcome = &mut served => Some(outcome),
        killed = state.killed() => return Err(killed.into()),
        () = shutdown => None,
    };
    tracing::info!("shutting down");
    state.life().stop();
    let outcome = match early {
        Some(outcome) => outcome,
        // Whoever has not finished by then meets a closed line, and asks the next process again.
        None => tokio::time::timeout(config.limits.drain, served).await.unwrap_or(Ok(())),
    };
    state.shutdown().await;
    store.close().await;
    outcome.map_err(|error| CoordinatorError::File { what: format!("the listener on {address}"), why: error.to_string() })
}

/// The data folder, for this process alone. The lock goes with the process, however it ends.
fn alone(folder: &Path) -> Result<File, CoordinatorError> {
    let lock = File::create(folder.join("lock")).map_err(|error| file(folder, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(CoordinatorError::InUse { folder: folder.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(file(folder, &error)),
    }
}

fn file(path: &Path, why: &dyn std::fmt::Display) -> CoordinatorError {
    CoordinatorError::File { what: path.display().to_string(), why: why.to_string() }
}

fn text(path: &Path) -> Result<Zeroizing<String>, CoordinatorError> {
    fs::read_to_string(path).map(Zeroizing::new).map_err(|error| file(path, &error))
}

fn listen(config: &Config, source: std::io::Error) -> CoordinatorError {
    CoordinatorError::Listen { address: config.listen, source }
}

fn ca(config: &Config) -> Result<Ca, CoordinatorError> {
    Ok(Ca::load(&text(&config.keys.ca)?, &text(&config.keys.ca_key)?)?)
}

fn trust(config: &Config) -> Result<TrustFile, CoordinatorError> {
    let path = &config.keys.trust;
    let trust = TrustFile::parse(&text(path)?).map_err(|fault| file(path, &fault))?;
    if trust.population != config.population {
        let why = format!("it is for population {}, the configuration for {}", trust.population, config.population);
        return Err(file(path, &why));
    }
    Ok(trust)
}

/// The certificate on the disk.
fn shown(config: &Config) -> Result<Issued, CoordinatorError> {
    let path = &config.keys.certificate;
    let pem = text(path)?.to_string();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| file(path, &error))?;
    Ok(Issued { certificate, pem, key: text(&config.keys.key)? })
}

fn work(config: &Config) -> Result<Candidates, CoordinatorError> {
    let path = &config.keys.release_key;
    let bytes = fs::read(path).map(Zeroizing::new).map_err(|error| file(path, &error))?;
    let random = SystemRandom::new();
    let key = match std::str::from_utf8(&bytes) {
        Ok(pem) if pem.contains("-----BEGIN") => SigningKey::from_pem(pem, &random),
        _ => SigningKey::from_pkcs8(&bytes, &random),
    };
    let key = key.map_err(|fault| file(path, &fault))?;
    let probe = match &config.release.probe[..] {
        [] => Probe::of_this_program(),
        command => Probe::new(command.iter().map(String::as_str)),
    };
    let probe = probe.map_err(|error| CoordinatorError::File { what: "release.probe".into(), why: error.to_string() })?;
    let class = config.release.class.clone().unwrap_or_else(this_machine);
    Ok(Candidates::new(CandidatesOptions { key, probe, class, library: config.release.runtime.clone() }))
}

fn this_machine() -> DeviceClass {
    sapwood_runtime::host_class().parse().expect("the classes of machines are names")
}

fn secrets() -> Box<dyn Secrets> {
    struct Random(SystemRandom);
    impl Secrets for Random {
        fn fill(&mut self, bytes: &mut [u8]) {
            self.0.fill(bytes).expect("the operating system has randomness");
        }
    }
    Box::new(Random(SystemRandom::new()))
}
