//! The enrolment desk: takes applications in, passes them on, hands certificates out. It makes nobody a member: that takes
//! the authority's signature, which is checked here before a certificate is issued.

use std::{sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use sapwood_proto::{convert, v1};
use sapwood_protocol::{
    Digest, Fault, NodeId, Timestamp,
    fault::{Lack, Misbehaviour, Misuse},
    membership::{Claim, IdentityKey, IdentitySignature, Proof, SignedMembership},
    trust::TrustFile,
    version::{self, Versions},
};
use serde::{Deserialize, Serialize};

use super::transfer::blocking;
use crate::{
    app::State,
    pki::{Application, Authority, Ca, CertificateRequest, Identity, PkiError, Role},
    store::Enrollment,
};

/// How long an applicant waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What the services need to know about members.
pub struct Desk {
    /// Whom we believe: the same file that every node has.
    pub trust: TrustFile,
    /// Signs TLS certificates.
    pub ca: Ca,
    /// Answers enrolments here and now; none: whoever holds the key does.
    pub authority: Option<Arc<Authority>>,
    /// How long a node's certificate lasts.
    pub lifetime: Duration,
}

/// An application as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    pub(super) application: Application,
    /// PKCS#10, DER.
    pub(super) request: Vec<u8>,
}

/// The authority's answer as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Answer {
    Member(SignedMembership),
    Refused(String),
}

impl Desk {
    /// Speaks the newest wire version in common.
    pub(super) fn negotiate(range: Option<v1::VersionRange>) -> Result<u32, Fault> {
        let range = range.ok_or_else(|| Misbehaviour::Malformed { what: "hello", why: "it names no wire version".into() })?;
        version::negotiate(version::WIRE, Versions { min: range.min, max: range.max })
    }

    /// Reads an application and checks what can be checked without the authority's secrets.
    fn read(&self, message: &v1::EnrollRequest) -> Result<(Pending, CertificateRequest), Fault> {
        let request = CertificateRequest::parse(&message.certificate_request).map_err(fault)?;
        let claim = Claim {
            population: message.population.parse()?,
            node: message.node.parse()?,
            identity: IdentityKey::from_bytes(exactly("identity key", &message.identity_key)?),
            tls: request.public_key().to_vec(),
        };
        if claim.population != self.trust.population {
            let certificate = format!("population {}", self.trust.population);
            return Err(Misbehaviour::WrongIdentity { certificate, message: format!("population {}", claim.population) }.into());
        }
        let application = Application {
            token: message.token_id.parse()?,
            proof: Proof::from_bytes(exactly("enrolment proof", &message.proof)?),
            signature: IdentitySignature::from_bytes(exactly("identity signature", &message.identity_signature)?),
            claim,
        };
        application.claim.check_signature(&application.token, &application.signature)?;
        Ok((Pending { application, request: message.certificate_request.to_vec() }, request))
    }

    /// Takes an application in, or looks how it stands.
    pub(super) async fn enroll(&self, state: &State, message: &v1::EnrollRequest) -> Result<v1::EnrollReply, Fault> {
        use v1::enroll_reply::Outcome;
        Self::negotiate(message.version)?;
        let (pending, request) = self.read(message)?;
        let now = state.clock().now();
        let application = &pending.application;
        // Where the authority is at hand, what it refuses is not even stored.
        let answer = match &self.authority {
            Some(authority) => {
                let (authority, application) = (authority.clone(), application.clone());
                Some(blocking(move || authority.authorize(&application, now).map_err(fault)).await?)
            }
            None => None,
        };
        let row = Enrollment {
            id: Digest::of(&to_json(application)),
            token: application.token.clone(),
            node: application.claim.node.clone(),
            request: to_json(&pending),
            reply: None,
            at: now,
        };
        let id = row.id;
        let mut row = state.enroll(row).await?;
        if let (None, Some(membership)) = (&row.reply, answer) {
            tracing::info!(node = %row.node, "enrolled by the authority in this process");
            row = state.answer_enrollment(id, to_json(&Answer::Member(membership))).await?;
        }
        let outcome = match row.reply.as_deref() {
            None => Outcome::PendingMs(u32::try_from(ASK_AGAIN.as_millis()).unwrap_or(u32::MAX)),
            Some(reply) => match convert::from_json("enrolment's answer", reply)? {
                Answer::Refused(why) => Outcome::Refused(why),
                Answer::Member(membership) => Outcome::Enrolled(self.enrolled(application, &request, &membership, now)?),
            },
        };
        Ok(v1::EnrollReply { outcome: Some(outcome) })
    }

    fn enrolled(
        &self,
        application: &Application,
        request: &CertificateRequest,
        membership: &SignedMembership,
        now: Timestamp,
    ) -> Result<v1::Enrolled, Fault> {
        self.belongs(application, membership, now)?;
        let certificate = self.certificate(&application.claim.node, request, now)?;
        Ok(v1::Enrolled { membership: convert::to_json(membership), certificates: vec![certificate.to_vec().into()] })
    }

    /// A membership must be the authority's, and for this applicant.
    fn belongs(&self, application: &Application, membership: &SignedMembership, now: Timestamp) -> Result<(), Fault> {
        let statement = membership.verify(&self.trust.authority, &self.trust.population, now)?;
        let claim = &application.claim;
        if statement.node != claim.node || statement.identity != claim.identity {
            let (certificate, message) = (statement.node.to_string(), claim.node.to_string());
            return Err(Misbehaviour::WrongIdentity { certificate, message }.into());
        }
        Ok(())
    }

    /// A TLS certificate for a member.
    pub(super) fn certificate(
        &self,
        node: &NodeId,
        request: &CertificateRequest,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, Fault> {
        let who = Identity { population: self.trust.population.clone(), role: Role::Node(node.clone()) };
        self.ca.certify(&who, request, now, self.lifetime).map_err(fault)
    }

    /// What waits for the authority.
    pub(super) async fn pending(&self, state: &State) -> Result<Vec<v1::PendingEnrollment>, Fault> {
        state.pending_enrollments().await?.iter().map(waiting).collect()
    }

    /// The authority's answer, from whoever holds its key.
    pub(super) async fn authorize(&self, state: &State, message: v1::AuthorizeRequest) -> Result<(), Fault> {
        use v1::authorize_request::Verdict;
        let id = convert::digest(&message.request_id)?;
        let answer = match message.verdict {
            None => return Err(Misbehaviour::Malformed { what: "authorization", why: "it has no verdict".into() }.into()),
            Some(Verdict::Refused(why)) => Answer::Refused(why),
            Some(Verdict::Membership(bytes)) => {
                let membership = convert::from_json("membership", &bytes)?;
                let rows = state.pending_enrollments().await?;
                let row = rows.into_iter().find(|row| row.id == id);
                let row =
                    row.ok_or_else(|| Misuse::State { what: "the enrolment".into(), why: "it does not wait for an answer".into() })?;
                let pending: Pending = convert::from_json("stored enrolment", &row.request)?;
                self.belongs(&pending.application, &membership, state.clock().now())?;
                Answer::Member(membership)
            }
        };
        state.answer_enrollment(id, to_json(&answer)).await.map(drop)
    }
}

/// An application from the wire, for whoever holds the authority's key away from the coordinator.
///
/// # Errors
/// If a field has another form, or the identity did not sign.
pub fn application(pending: &v1::PendingEnrollment) -> Result<Application, Fault> {
    let request = CertificateRequest::parse(&pending.certificate_request).map_err(fault)?;
    let application = Application {
        token: pending.token_id.parse()?,
        claim: Claim {
            population: pending.population.parse()?,
            node: pending.node.parse()?,
            identity: IdentityKey::from_bytes(exactly("identity key", &pending.identity_key)?),
            tls: request.public_key().to_vec(),
        },
        proof: Proof::from_bytes(exactly("enrolment proof", &pending.proof)?),
        signature: IdentitySignature::from_bytes(exactly("identity signature", &pending.identity_signature)?),
    };
    application.claim.check_signature(&application.token, &application.signature)?;
    Ok(application)
}

fn waiting(row: &Enrollment) -> Result<v1::PendingEnrollment, Fault> {
    let Pending { application, request } = convert::from_json("stored enrolment", &row.request)?;
    Ok(v1::PendingEnrollment {
        request_id: row.id.as_bytes().to_vec().into(),
        population: application.claim.population.to_string(),
        node: application.claim.node.to_string(),
        token_id: application.token.to_string(),
        proof: application.proof.as_bytes().to_vec().into(),
        identity_key: application.claim.identity.as_bytes().to_vec().into(),
        certificate_request: request.into(),
        identity_signature: application.signature.as_bytes().to_vec().into(),
    })
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    convert::to_json(value).to_vec()
}

/// A trouble with keys as the caller is told: what it did wrong, or that we cannot at the moment.
pub(super) fn fault(error: PkiError) -> Fault {
    match error {
        PkiError::Refused(fault) => fault,
        PkiError::Request { why } => Misbehaviour::Malformed { what: "certificate request", why }.into(),
        other => {
            tracing::error!(error = %other, "keys or certificates");
            Lack::Resource { what: "the coordinator's keys", why: "see its log".into() }.into()
        }
    }
}

fn exactly<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], Fault> {
    bytes.try_into().map_err(|_| Misuse::Length { what, expected: N, actual: bytes.len() }.into())
}
