//! The service that a machine without a certificate may call.

use std::sync::Arc;

use sapwood_proto::{
    convert::status,
    v1::{EnrollReply, EnrollRequest, enrollment_server::Enrollment},
};
use tonic::{Request, Response, Status};

use super::Desk;
use crate::app::State;

pub(super) struct EnrollmentService {
    pub(super) state: State,
    pub(super) desk: Arc<Desk>,
}

#[tonic::async_trait]
impl Enrollment for EnrollmentService {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollReply>, Status> {
        let reply = self.desk.enroll(&self.state, request.get_ref()).await;
        reply.map(Response::new).map_err(|fault| status(&fault))
    }
}
