//! From a one-time token to a membership and a certificate.

use std::time::Duration;

use prost::Message;
use sapwood_proto::{
    convert,
    v1::{self, enroll_reply::Outcome, enrollment_client::EnrollmentClient},
};
use sapwood_protocol::{
    Fault, NodeId,
    fault::Misbehaviour,
    membership::{Claim, Identity, SignedMembership, Token},
    trust::TrustFile,
    version::WIRE,
};

use super::{ENROLLING_REQUEST, Enrolled, Folder, IdentityError, keys::TlsKey};
use crate::{
    clock,
    link::{Backoff, Policy, channel},
    points::REQUEST_STORED,
};

/// The coordinator says when to ask again; within these bounds.
const LEAST_WAIT: Duration = Duration::from_millis(20);
const MOST_WAIT: Duration = Duration::from_secs(60);

/// Keys that nobody has vouched for yet.
pub struct Enrolling {
    pub(super) folder: Folder,
    pub(super) identity: Identity,
    pub(super) tls: TlsKey,
}

/// Enrols under `node`, asking at `address` until the authority has answered. A broken line, now or in a restart, costs
/// nothing: the same keys ask again with the same request, which needs no token a second time.
///
/// # Errors
/// [`IdentityError::NoToken`], [`IdentityError::Refused`], [`IdentityError::Answer`], and what time does not heal.
pub async fn enroll(
    enrolling: Enrolling,
    node: &NodeId,
    address: &str,
    trust: &TrustFile,
    token: Option<Token>,
) -> Result<Enrolled, IdentityError> {
    let request = enrolling.request(node, trust, token)?;
    let answer = ask(address, trust, request).await?;
    let Enrolling { folder, identity, tls } = enrolling;

    let membership: SignedMembership = convert::from_json("membership", &answer.membership)?;
    let statement = membership.verify(&trust.authority, &trust.population, clock::now())?;
    if statement.node != *node || statement.identity != identity.key() {
        let (certificate, message) = (format!("node {}", statement.node), format!("node {node}"));
        return Err(Fault::from(Misbehaviour::WrongIdentity { certificate, message }).into());
    }
    let certified = tls.certified(&answer.certificates)?;
    folder.enrolled(identity, membership, certified)
}

impl Enrolling {
    /// The request of an earlier start if there is one, so that the token is needed once; a new one otherwise. The token is
    /// gone, and its secret wiped, when this returns.
    fn request(&self, node: &NodeId, trust: &TrustFile, token: Option<Token>) -> Result<v1::EnrollRequest, IdentityError> {
        let stored = self.folder.read(ENROLLING_REQUEST)?;
        let stored = stored.map(|bytes| v1::EnrollRequest::decode(&bytes[..])).transpose();
        let stored = stored.map_err(|e| self.folder.damaged(ENROLLING_REQUEST, e))?;
        let token = match (stored, token) {
            (None, None) => return Err(IdentityError::NoToken),
            (Some(stored), None) => return Ok(stored),
            // The operator may have given a new token because the first was lost or refused.
            (Some(stored), Some(token)) if stored.token_id == token.id().as_str() && stored.node == node.as_str() => return Ok(stored),
            (_, Some(token)) => token,
        };
        let claim =
            Claim { population: trust.population.clone(), node: node.clone(), identity: self.identity.key(), tls: self.tls.public() };
        let request = v1::EnrollRequest {
            population: claim.population.to_string(),
            node: claim.node.to_string(),
            token_id: token.id().to_string(),
            proof: token.prove(&claim).as_bytes().to_vec().into(),
            identity_key: claim.identity.as_bytes().to_vec().into(),
            certificate_request: self.tls.request(node).map_err(|e| self.folder.damaged(super::ENROLLING_KEY, e))?.into(),
            identity_signature: claim.sign(token.id(), &self.identity).as_bytes().to_vec().into(),
            version: Some(v1::VersionRange { min: WIRE.min, max: WIRE.max }),
        };
        self.folder.write(ENROLLING_REQUEST, &request.encode_to_vec())?;
        REQUEST_STORED.reached()?;
        Ok(request)
    }
}

/// Asks until there is an answer. Nobody knows us yet, so only the server shows a certificate.
async fn ask(address: &str, trust: &TrustFile, request: v1::EnrollRequest) -> Result<v1::Enrolled, IdentityError> {
    let mut backoff = Backoff::fresh();
    'connect: loop {
        let channel = match channel(address, trust.coordinator_ca.as_bytes(), None).await {
            Ok(channel) => channel,
            Err(error) if error.is_permanent() => return Err(error.into()),
            Err(error) => {
                let wait = backoff.next(Policy::RECONNECT);
                tracing::warn!(%error, ?wait, "cannot enrol yet");
                tokio::time::sleep(wait).await;
                continue;
            }
        };
        let mut client = EnrollmentClient::new(channel).max_decoding_message_size(sapwood_proto::MAX_MESSAGE);
        loop {
            let reply = match client.enroll(request.clone()).await {
                Ok(reply) => reply.into_inner(),
                Err(status) if convert::may_retry(&status) || std::error::Error::source(&status).is_some() => {
                    tokio::time::sleep(backoff.next(Policy::RECONNECT)).await;
                    continue 'connect;
                }
                Err(status) => return Err(IdentityError::Refused { why: status.message().to_owned() }),
            };
            match reply.outcome {
                Some(Outcome::Enrolled(enrolled)) => return Ok(enrolled),
                Some(Outcome::Refused(why)) => return Err(IdentityError::Refused { why }),
                Some(Outcome::PendingMs(wait)) => {
                    backoff.reset();
                    tracing::info!("the enrolment authority has not answered yet");
                    tokio::time::sleep(Duration::from_millis(wait.into()).clamp(LEAST_WAIT, MOST_WAIT)).await;
                }
                None => return Err(Fault::from(Misbehaviour::Malformed { what: "the enrolment reply", why: "it is empty".into() }).into()),
            }
        }
    }
}
