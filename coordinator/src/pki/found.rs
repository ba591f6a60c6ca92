//! One folder with everything that a deployment starts from.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ring::rand::SystemRandom;
use sapwood_protocol::{
    OperatorId, PopulationId, Timestamp,
    release::{SigningKey, verify::ReleaseTrust},
    trust::TrustFile,
};

use super::{Authority, Ca, Identity, PkiError, Role, files};

const DAY: Duration = Duration::from_secs(86_400);

/// What is to be founded.
#[derive(Clone, Debug)]
pub struct FoundOptions {
    /// The fleet's name.
    pub population: PopulationId,
    /// Where the coordinator will listen.
    pub listen: SocketAddr,
    /// DNS names and addresses under which it is reached; they go into its certificate.
    pub names: Vec<String>,
    /// The first operator.
    pub operator: OperatorId,
    /// How long the TLS authority lasts.
    pub ca_lifetime: Duration,
    /// How long the coordinator's certificate lasts; it is replaced two thirds into that.
    pub server_lifetime: Duration,
    /// How long the operator's certificate lasts.
    pub operator_lifetime: Duration,
    /// How long a node is a member.
    pub membership_lifetime: Duration,
}

impl FoundOptions {
    /// A coordinator on this machine alone.
    pub fn local(population: PopulationId, listen: SocketAddr) -> Self {
        Self {
            population,
            listen,
            names: vec!["localhost".into(), "127.0.0.1".into(), "::1".into()],
            operator: "operator".parse().expect("a valid name"),
            ca_lifetime: 3650 * DAY,
            server_lifetime: 90 * DAY,
            operator_lifetime: 365 * DAY,
            membership_lifetime: 3650 * DAY,
        }
    }
}

/// A founded folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    root: PathBuf,
    /// Whether it was founded just now; otherwise it was there already and nothing was written.
    pub fresh: bool,
}

/// What lies where: path, whether it is secret, what it is for.
pub const CONTENTS: &[(&str, bool, &str)] = &[
    (
        "authority/",
        true,
        "enrolment authority: its key and tokens make members. Move this folder away from the coordinator of a real fleet",
    ),
    ("tls/ca.pem", false, "TLS authority of the coordinator"),
    ("tls/ca.key", true, "its key: makes TLS certificates, no members"),
    ("tls/coordinator.pem", false, "the coordinator's certificate"),
    ("tls/coordinator.key", true, "its key"),
    ("release/key.p8", true, "release key: what it signs, nodes run. PKCS#8, DER"),
    ("release/pub.pem", false, "its public half, for `openssl dgst -sha256 -verify`"),
    ("operator/cert.pem", false, "the operator's certificate"),
    ("operator/key.pem", true, "its key"),
    ("operator/ca.pem", false, "whom the operator's calls trust"),
    ("trust.toml", false, "give this to every node, out of band"),
    ("coordinator.toml", false, "the coordinator's configuration"),
];

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        impl Deployment {
            $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.root.join($path) })*
        }
    };
}

paths! {
    /// The enrolment authority's folder.
    authority = "authority";
    /// TLS authority, PEM.
    ca = "tls/ca.pem";
    /// Its key, PEM.
    ca_key = "tls/ca.key";
    /// The coordinator's certificate, PEM.
    certificate = "tls/coordinator.pem";
    /// Its key, PEM.
    key = "tls/coordinator.key";
    /// Release key, PKCS#8 DER.
    release_key = "release/key.p8";
    /// Its public half, PEM.
    release_public = "release/pub.pem";
    /// The operator's certificate, PEM.
    operator_certificate = "operator/cert.pem";
    /// Its key, PEM.
    operator_key = "operator/key.pem";
    /// Whom the operator's calls trust, PEM.
    operator_ca = "operator/ca.pem";
    /// What nodes trust.
    trust = "trust.toml";
    /// The coordinator's configuration.
    config = "coordinator.toml";
}

impl Deployment {
    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Founds a deployment in `dir`. A folder that holds this population's deployment already is left as it is; one that
/// holds anything else is refused. It appears whole or not at all.
///
/// All keys end up in one folder. That suits a demo and a first trial; [`CONTENTS`] says what to move where.
pub fn found(dir: &Path, options: &FoundOptions, now: Timestamp) -> Result<Deployment, PkiError> {
    let here = Deployment { root: dir.to_path_buf(), fresh: false };
    if let Some(text) = files::read_if_there(&here.trust())? {
        let text = String::from_utf8_lossy(&text).into_owned();
        let found = TrustFile::parse(&text)?.population;
        if found != options.population {
            let (found, asked) = (found.to_string(), options.population.to_string());
            return Err(PkiError::OtherPopulation { path: dir.to_path_buf(), found, asked });
        }
        return Ok(here);
    }
    if !files::names(dir)?.is_empty() {
        return Err(PkiError::Occupied { path: dir.to_path_buf() });
    }
    let name = dir.file_name().map_or_else(|| "deployment".into(), |name| name.to_string_lossy().into_owned());
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::folder(parent)?;
    let draft = Deployment { root: parent.join(format!(".{name}.founding-{}", std::process::id())), fresh: true };
    let made = fill(&draft, options, now).and_then(|()| files::rename(&draft.root, dir)).and_then(|()| files::sync(parent));
    if let Err(e) = made {
        // The first error says what went wrong; a draft that stays behind is in nobody's way.
        let _ = fs::remove_dir_all(&draft.root);
        return Err(e);
    }
    Ok(Deployment { fresh: true, ..here })
}

/// The contents, in the draft's folder.
fn fill(draft: &Deployment, options: &FoundOptions, now: Timestamp) -> Result<(), PkiError> {
    for folder in ["", "tls", "release", "operator"] {
        files::folder(&draft.root.join(folder))?;
    }
    let population = &options.population;
    let authority = Authority::create(&draft.authority(), population, options.membership_lifetime)?;

    let (ca, ca_files) = Ca::create(population, now, options.ca_lifetime)?;
    files::create(&draft.ca(), ca_files.pem.as_bytes(), false)?;
    files::create(&draft.ca_key(), ca_files.key.as_bytes(), true)?;
    let who = Identity { population: population.clone(), role: Role::Coordinator };
    let server = ca.server(&who, &options.names, now, options.server_lifetime)?;
    files::create(&draft.certificate(), server.pem.as_bytes(), false)?;
    files::create(&draft.key(), server.key.as_bytes(), true)?;

    let random = SystemRandom::new();
    let release_key = SigningKey::generate(&random)?;
    let public = SigningKey::from_pkcs8(&release_key, &random)?.verifying_key();
    files::create(&draft.release_key(), &release_key, true)?;
    files::create(&draft.release_public(), public.to_pem().as_bytes(), false)?;

    let who = Identity { population: population.clone(), role: Role::Operator(options.operator.clone()) };
    let operator = ca.client(&who, now, options.operator_lifetime)?;
    files::create(&draft.operator_certificate(), operator.pem.as_bytes(), false)?;
    files::create(&draft.operator_key(), operator.key.as_bytes(), true)?;
    files::create(&draft.operator_ca(), ca_files.pem.as_bytes(), false)?;

    let trust = TrustFile {
        population: population.clone(),
        authority: authority.key(),
        coordinator_ca: ca_files.pem,
        release: ReleaseTrust { keys: vec![public], threshold: 1 },
    };
    files::create(&draft.config(), configuration(options).as_bytes(), false)?;
    files::create(&draft.trust(), trust.to_toml()?.as_bytes(), false)?;
    for folder in ["tls", "release", "operator", ""] {
        files::sync(&draft.root.join(folder))?;
    }
    Ok(())
}

/// `coordinator.toml`; its paths count from the file's own folder.
fn configuration(options: &FoundOptions) -> String {
    let names: Vec<String> = options.names.iter().map(|name| format!("{name:?}")).collect();
    format!(
        r#"population = "{}"
listen = "{}"
public_names = [{}]
data_dir = "data"

[keys]
ca = "tls/ca.pem"
ca_key = "tls/ca.key"
certificate = "tls/coordinator.pem"
key = "tls/coordinator.key"
release_key = "release/key.p8"
trust = "trust.toml"
# With the authority's folder here, the coordinator answers enrolments by itself: right for a trial, not for a fleet.
# Move the folder to whoever runs `sapwood fleet authorize`, and remove this line.
authority = "authority"

# What all runs together may cost whom they protect. What is spent never comes back.
[budgets.example]
epsilon = 10.0
delta = 1e-5
# A second unit, [budgets.node] or [budgets.entity] with key = "customer", say, would be a budget of its own: runs under one unit are not
# counted against the other.
"#,
        options.population,
        options.listen,
        names.join(", ")
    )
}
