//! Who calls, and whether they may. The certificate decides; what a message says about its sender must agree with it.

use std::sync::Arc;

use sapwood_proto::convert::status;
use sapwood_protocol::{
    Fault, NodeId, OperatorId, PopulationId, Timestamp,
    fault::{Expiry, Misbehaviour},
};
use tonic::{Request, Status};

use super::accept::Peer;
use crate::pki::{Certified, Role};

/// A node by its certificate.
#[derive(Clone, Debug)]
pub(crate) struct NodeCaller {
    pub(crate) node: NodeId,
    pub(crate) certified: Arc<Certified>,
}

/// The caller of a method that is for nodes.
pub(crate) fn node<T>(request: &Request<T>, population: &PopulationId, now: Timestamp) -> Result<NodeCaller, Status> {
    let certified = certified(request, population, now)?;
    match &certified.identity.role {
        Role::Node(node) => Ok(NodeCaller { node: node.clone(), certified }),
        _ => Err(wrong_role(&certified, "a node")),
    }
}

/// The caller of a method that is for operators.
pub(crate) fn operator<T>(request: &Request<T>, population: &PopulationId, now: Timestamp) -> Result<OperatorId, Status> {
    let certified = certified(request, population, now)?;
    match &certified.identity.role {
        Role::Operator(operator) => Ok(operator.clone()),
        _ => Err(wrong_role(&certified, "an operator")),
    }
}

/// What a message says about its sender must be what the certificate says.
pub(crate) fn same(caller: &NodeCaller, claimed: &NodeId) -> Result<(), Fault> {
    if caller.node == *claimed {
        return Ok(());
    }
    Err(Misbehaviour::WrongIdentity { certificate: caller.node.to_string(), message: claimed.to_string() }.into())
}

fn certified<T>(request: &Request<T>, population: &PopulationId, now: Timestamp) -> Result<Arc<Certified>, Status> {
    let certified = request.extensions().get::<Peer>().and_then(|peer| peer.certified.clone());
    let certified = certified.ok_or_else(|| Status::unauthenticated("this needs a client certificate; enrol first"))?;
    if certified.identity.population != *population {
        let fault =
            Misbehaviour::WrongIdentity { certificate: certified.identity.to_string(), message: format!("population {population}") };
        return Err(status(&fault.into()));
    }
    // TLS looked when the connection was opened, which may be long ago.
    if now > certified.not_after {
        return Err(status(&Expiry::Statement { what: "the client certificate", at: certified.not_after }.into()));
    }
    Ok(certified)
}

fn wrong_role(certified: &Certified, needed: &str) -> Status {
    Status::permission_denied(format!("{} is not {needed}", certified.identity))
}
