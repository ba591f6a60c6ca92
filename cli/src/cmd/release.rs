//! `sapwood release …`: bundles that passed their gates.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use sapwood_proto::v1;
use sapwood_protocol::{
    release::{
        Signature, Signatures, VerifyingKey,
        bundle::Limits,
        verify::{ReleaseTrust, Verified, check_signatures, verify_release},
        view::ReleaseView,
    },
    trust::TrustFile,
};
use serde_json::json;

use crate::{
    output::{Answer, Exit, Failure, OrFail, bytes, table},
    remote::{Operator, block_on, refused, view},
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// All releases, newest first.
    List {
        #[command(flatten)]
        operator: Operator,
    },
    /// One release: digests, gates with their numbers, privacy.
    Show {
        /// NAME-VERSION.
        release: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// Checks a bundle and its manifest, offline: signatures, checksum, every part's digest.
    #[command(
        after_help = "Examples:\n  sapwood release verify digits-1-x86-64.tar.gz --trust trust.toml\n  sapwood release verify bundle.tar.gz --manifest manifest.json --key pub.pem\n\nThe same with openssl:\n  openssl dgst -sha256 -verify pub.pem -signature bundle.tar.gz.sig bundle.tar.gz"
    )]
    Verify(VerifyArgs),
}

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The .tar.gz; its signature is BUNDLE.sig.
    bundle: PathBuf,
    /// The manifest; its signature is MANIFEST.sig. Default: manifest.json beside the bundle.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// A trust file with the release keys.
    #[arg(long, conflicts_with = "key")]
    trust: Option<PathBuf>,
    /// A release key in PEM; may be repeated.
    #[arg(long)]
    key: Vec<PathBuf>,
}

pub(crate) fn run(verb: Verb) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::List { operator } => ("release list", block_on(list(operator))),
        Verb::Show { release, operator } => ("release show", block_on(show(release, operator))),
        Verb::Verify(args) => ("release verify", verify(&args)),
    }
}

async fn list(operator: Operator) -> Result<Answer, Failure> {
    let mut remote = operator.connect().await?;
    let reply = remote.client.list_releases(v1::ListRequest {}).await.map_err(|s| refused(&s))?.into_inner();
    let releases: Vec<ReleaseView> = view(&reply)?;
    let rows: Vec<_> = releases
        .iter()
        .map(|r| {
            vec![r.release.to_string(), r.class.to_string(), bytes(r.bytes), r.digest.short(), r.run.to_string(), r.created.to_string()]
        })
        .collect();
    Ok(Answer::new(json!({"releases": releases}), table(&["release", "class", "size", "digest", "run", "created"], &rows)))
}

async fn show(release: String, operator: Operator) -> Result<Answer, Failure> {
    let mut remote = operator.connect().await?;
    let reply = remote.client.show_release(v1::ByName { name: release }).await.map_err(|s| refused(&s))?.into_inner();
    let release: ReleaseView = view(&reply)?;
    let gates: Vec<String> = release.gates.gates.iter().map(|l| format!("  {l}")).collect();
    let text = format!(
        "{}  {}  {}\nbundle    {}\nmanifest  {}\nrun       {}\ngates\n{}\nprivacy   {}",
        release.release,
        release.class,
        bytes(release.bytes),
        release.digest,
        release.manifest,
        release.run,
        gates.join("\n"),
        release.privacy,
    );
    Ok(Answer::new(&release, text))
}

fn verify(args: &VerifyArgs) -> Result<Answer, Failure> {
    let manifest_path = args.manifest.clone().unwrap_or_else(|| args.bundle.with_file_name("manifest.json"));
    let bundle = read(&args.bundle)?;
    let manifest = read(&manifest_path)?;
    let signatures = Signatures { bundle: vec![signature(&args.bundle)?], manifest: vec![signature(&manifest_path)?] };
    let trust = trust(args)?;
    let mut checks = check_signatures("bundle", &bundle, &signatures.bundle, &trust);
    checks.extend(check_signatures("manifest", &manifest, &signatures.manifest, &trust));
    let rows: Vec<_> = checks.iter().map(|c| json!({"layer": c.layer, "key": c.key, "valid": c.valid})).collect();
    match verify_release(&bundle, &manifest, &signatures, &trust, &Limits::default()) {
        Ok(Verified { manifest, digest, .. }) => Ok(Answer::new(
            json!({"valid": true, "signatures": rows, "privacy": manifest.privacy, "digest": digest}),
            format!("valid: {} {}\n{digest}\nprivacy: {}", manifest.model_name, manifest.version, manifest.privacy),
        )),
        Err(fault) => Err(Failure::new(Exit::Refused, format!("do not use it: {fault}")).data(json!({"valid": false, "signatures": rows}))),
    }
}

fn trust(args: &VerifyArgs) -> Result<ReleaseTrust, Failure> {
    if let Some(path) = &args.trust {
        let text = String::from_utf8(read(path)?).map_err(|_| Failure::usage(format!("{} is not text", path.display())))?;
        return Ok(TrustFile::parse(&text)?.release);
    }
    if args.key.is_empty() {
        return Err(
            Failure::usage("whose signature is trusted?").hint("name a key with --key pub.pem, or a trust file with --trust trust.toml")
        );
    }
    let mut keys = Vec::new();
    for path in &args.key {
        let text = String::from_utf8(read(path)?).map_err(|_| Failure::usage(format!("{} is not text", path.display())))?;
        keys.push(VerifyingKey::from_pem(&text)?);
    }
    let trust = ReleaseTrust { threshold: 1, keys };
    trust.check()?;
    Ok(trust)
}

fn signature(path: &Path) -> Result<Signature, Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    Signature::from_der(&read(Path::new(&name))?).or_fail(Exit::Refused)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| Failure::new(Exit::NotFound, format!("{}: {e}", path.display())))
}
