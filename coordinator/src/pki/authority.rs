//! The enrolment authority: says who is a member. Its key need not lie with the coordinator.
//!
//! A folder holds its state: `key.p8`, one file per token in `tokens/`, one per member in `members/`. A token is spent by
//! the file `tokens/ID.spent`, which holds the membership that was signed for it and appears whole or not at all: after a
//! crash the same claim gets the same answer, and any other claim is refused.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use ring::rand::{SecureRandom, SystemRandom};
use sapwood_protocol::{
    Fault, NodeId, PopulationId, Secrets, Timestamp, TokenId,
    fault::{Expiry, Misbehaviour, Misuse},
    membership::{Claim, Identity, IdentityKey, IdentitySignature, Membership, Proof, SignedMembership, Token},
    time::span,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{PkiError, files};

const KEY: &str = "key.p8";
const TOKENS: &str = "tokens";
const MEMBERS: &str = "members";

/// What a new token may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTerms {
    /// What the member will be labelled with, such as `ring = "canary"`.
    pub labels: BTreeMap<String, String>,
    /// The only name that it enrols; without one, any name that is not taken.
    pub node: Option<NodeId>,
    /// How long it can be used.
    pub lifetime: Duration,
}

/// A token as its authority knows it. The secret is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its public part.
    pub id: TokenId,
    /// Until when it can be used.
    pub expires: Timestamp,
    /// The labels that it gives.
    pub labels: BTreeMap<String, String>,
    /// The only name that it enrols.
    pub node: Option<NodeId>,
}

/// What a node asks for, as the coordinator passes it on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Under which token.
    pub token: TokenId,
    /// What is to be bound together.
    pub claim: Claim,
    /// That the applicant holds the token.
    pub proof: Proof,
    /// That the applicant holds the identity.
    pub signature: IdentitySignature,
}

/// Holds the population's Ed25519 key.
pub struct Authority {
    identity: Identity,
    population: PopulationId,
    folder: PathBuf,
    lifetime: Duration,
}

/// A token that can still be used.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Minted {
    token: String,
    expires: Timestamp,
    labels: BTreeMap<String, String>,
    node: Option<NodeId>,
}

impl Drop for Minted {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

/// A token that was used.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spent {
    application: Application,
    membership: SignedMembership,
}

/// The settings that are not secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    population: PopulationId,
    #[serde(with = "span")]
    membership_lifetime: Duration,
}

/// The system's generator as the protocol's source of secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemSecrets;

impl Secrets for SystemSecrets {
    fn fill(&mut self, bytes: &mut [u8]) {
        SystemRandom::new().fill(bytes).expect("the kernel's generator does not fail once it is seeded");
    }
}

impl Authority {
    /// A new authority in a new folder, whose members stay so for `lifetime`.
    pub fn create(folder: &Path, population: &PopulationId, lifetime: Duration) -> Result<Self, PkiError> {
        files::folder(folder)?;
        let key = Identity::generate(&SystemRandom::new())?;
        let settings = Settings { population: population.clone(), membership_lifetime: lifetime };
        let text = toml::to_string(&settings).map_err(|e| PkiError::unusable("the authority's settings", e))?;
        files::folder(&folder.join(TOKENS))?;
        files::folder(&folder.join(MEMBERS))?;
        files::create(&folder.join("authority.toml"), text.as_bytes(), false)?;
        files::create(&folder.join(KEY), &key, true)?;
        files::sync(folder)?;
        Self::open(folder)
    }

    /// An authority that was created before.
    pub fn open(folder: &Path) -> Result<Self, PkiError> {
        let identity = Identity::from_pkcs8(&files::read(&folder.join(KEY))?)?;
        let text = files::read_text(&folder.join("authority.toml"))?;
        let settings: Settings = toml::from_str(&text).map_err(|e| PkiError::unusable("the authority's settings", e))?;
        Ok(Self { identity, population: settings.population, folder: folder.to_path_buf(), lifetime: settings.membership_lifetime })
    }

    /// What every node pins.
    pub fn key(&self) -> IdentityKey {
        self.identity.key()
    }

    /// Whom it answers for.
    pub fn population(&self) -> &PopulationId {
        &self.population
    }

    /// A new one-time token. It is on the disk when this returns; its printed form is shown once, to the operator.
    pub fn mint(&self, terms: &TokenTerms, now: Timestamp) -> Result<Token, PkiError> {
        let token = Token::generate(&mut SystemSecrets);
        let minted = Minted {
            token: token.reveal().to_string(),
            expires: now + terms.lifetime,
            labels: terms.labels.clone(),
            node: terms.node.clone(),
        };
        let bytes = Zeroizing::new(serde_json::to_vec(&minted).expect("a token has string keys"));
        files::publish(&self.folder.join(TOKENS), &format!("{}.json", token.id()), &bytes)?;
        Ok(token)
    }

    /// The tokens that were not used yet, by id.
    pub fn tokens(&self) -> Result<Vec<TokenInfo>, PkiError> {
        let folder = self.folder.join(TOKENS);
        let mut tokens = Vec::new();
        for name in files::names(&folder)? {
            let Some(id) = name.strip_suffix(".json").and_then(|id| id.parse::<TokenId>().ok()) else { continue };
            if self.spent(&id)?.is_some() {
                continue;
            }
            if let Some(minted) = self.minted(&id)? {
                tokens.push(TokenInfo { id, expires: minted.expires, labels: minted.labels.clone(), node: minted.node.clone() });
            }
        }
        Ok(tokens)
    }

    /// Makes the applicant a member, once. Asked again with the same application, it gives the same answer.
    pub fn authorize(&self, application: &Application, now: Timestamp) -> Result<SignedMembership, PkiError> {
        let Application { token: id, claim, proof, signature } = application;
        if claim.population != self.population {
            let certificate = format!("population {}", self.population);
            return refuse(Misbehaviour::WrongIdentity { certificate, message: format!("population {}", claim.population) });
        }
        claim.check_signature(id, signature)?;
        if let Some(spent) = self.spent(id)? {
            return self.again(spent, application);
        }
        let Some(minted) = self.minted(id)? else {
            let what = format!("enrolment token {id}");
            return refuse(Misuse::State {
                what,
                why: "this authority has minted none of this name; ask the fleet's operator for one".into(),
            });
        };
        minted.token.parse::<Token>()?.check(claim, proof)?;
        if now >= minted.expires {
            return refuse(Expiry::Token { token: id.to_string(), at: minted.expires });
        }
        self.may_be_called(&claim.node, &minted, claim)?;
        let statement = Membership {
            population: claim.population.clone(),
            node: claim.node.clone(),
            identity: claim.identity,
            labels: minted.labels.clone(),
            issued: now,
            expires: now + self.lifetime,
        };
        let spent = Spent { application: application.clone(), membership: statement.sign(&self.identity) };
        let bytes = serde_json::to_vec(&spent).expect("an application has string keys");
        // From here on the token is spent. Of two at the same time, one comes too late.
        if !files::publish(&self.folder.join(TOKENS), &format!("{id}.spent"), &bytes)? {
            let first = self.spent(id)?.ok_or_else(|| PkiError::unusable("a spent token", "its file vanished"))?;
            return self.again(first, application);
        }
        self.settle(&spent)?;
        Ok(spent.membership)
    }

    /// A token with a name enrols that name, also anew; one without enrols only a name that nobody has.
    fn may_be_called(&self, node: &NodeId, minted: &Minted, claim: &Claim) -> Result<(), PkiError> {
        match &minted.node {
            Some(name) if name == node => Ok(()),
            Some(name) => refuse(Misbehaviour::WrongIdentity { certificate: name.to_string(), message: node.to_string() }),
            None => match self.member(node)? {
                Some(member) if member.statement.identity != claim.identity => {
                    let why = "the name is taken; to enrol the node anew, mint a token for this name".to_owned();
                    refuse(Misuse::State { what: format!("node {node}"), why })
                }
                _ => Ok(()),
            },
        }
    }

    fn again(&self, spent: Spent, application: &Application) -> Result<SignedMembership, PkiError> {
        if spent.application != *application {
            return refuse(Misbehaviour::TokenReused { token: application.token.to_string() });
        }
        self.settle(&spent)?;
        Ok(spent.membership)
    }

    /// What follows from a spent token; done again after a crash.
    fn settle(&self, spent: &Spent) -> Result<(), PkiError> {
        let statement = &spent.membership.statement;
        let newer = self.member(&statement.node)?.is_some_and(|member| member.statement.issued > statement.issued);
        if !newer {
            let bytes = serde_json::to_vec(&spent.membership).expect("a membership has string keys");
            files::replace(&self.folder.join(MEMBERS), &format!("{}.json", statement.node), &bytes)?;
        }
        files::remove(&self.folder.join(TOKENS).join(format!("{}.json", spent.application.token)))
    }

    /// The newest membership of a name.
    pub fn member(&self, node: &NodeId) -> Result<Option<SignedMembership>, PkiError> {
        self.read(MEMBERS, &format!("{node}.json"), "a member's file")
    }

    fn minted(&self, id: &TokenId) -> Result<Option<Minted>, PkiError> {
        self.read(TOKENS, &format!("{id}.json"), "a token's file")
    }

    fn spent(&self, id: &TokenId) -> Result<Option<Spent>, PkiError> {
        self.read(TOKENS, &format!("{id}.spent"), "a spent token's file")
    }

    fn read<T: serde::de::DeserializeOwned>(&self, folder: &str, name: &str, what: &'static str) -> Result<Option<T>, PkiError> {
        let bytes = files::read_if_there(&self.folder.join(folder).join(name))?;
        // The parser's words could repeat a secret.
        bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(|_| PkiError::unusable(what, "it is damaged"))).transpose()
    }
}

fn refuse<T>(fault: impl Into<Fault>) -> Result<T, PkiError> {
    Err(PkiError::Refused(fault.into()))
}
