//! The model that answers now.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use sapwood_data::{DataError, Schema};
use sapwood_models::Dim;
use sapwood_protocol::{
    Digest, Fault,
    release::{Postprocess, documents::SchemaId},
};
use sapwood_runtime::{Input, IoInfo, Output, Runtime, RuntimeError, Session, SessionOptions};

use super::{ServeError, guard::Guard};

/// A model that answers faster than this runs on the thread that read the request; a slower one must not hold up others.
const QUICK: Duration = Duration::from_millis(2);

/// What is needed to serve a release.
pub struct Model {
    /// The name in the protocol's paths.
    pub name: String,
    /// The version in the protocol's paths.
    pub version: String,
    /// The released digest: SHA-256 of the bundle.
    pub digest: Digest,
    /// The whole graph, preprocessing included, as ONNX.
    pub onnx: Vec<u8>,
    /// Threads of one inference.
    pub threads: usize,
    /// Inferences at the same time, for models that are not quick.
    pub sessions: usize,
}

/// A model that is ready to answer.
pub struct Served {
    /// The name in the protocol's paths.
    pub name: String,
    /// The version in the protocol's paths.
    pub version: String,
    /// The released digest.
    pub digest: Digest,
    inputs: Vec<IoInfo>,
    outputs: Vec<IoInfo>,
    /// Idle sessions. Taken one at a time, given back after use.
    idle: Mutex<Vec<Session>>,
    /// A session came back.
    returned: Condvar,
    quick: bool,
    /// What may be asked.
    guard: Option<Guard>,
    /// What becomes of the outputs.
    postprocess: Postprocess,
}

/// Holds the model that answers now, and exchanges it without a gap.
#[derive(Default)]
pub struct Engine {
    current: ArcSwapOption<Served>,
}

impl Engine {
    /// An engine without a model.
    pub fn new() -> Self {
        Self::default()
    }

    /// The model that answers now.
    pub fn current(&self) -> Option<Arc<Served>> {
        self.current.load_full()
    }

    /// From here on new requests go to `model`, or nowhere. Requests under way end on the model they began with.
    pub fn exchange(&self, model: Option<Served>) {
        self.current.store(model.map(Arc::new));
    }
}

impl Served {
    /// Loads a model; nothing serves it until [`Engine::exchange`].
    ///
    /// # Errors
    /// If ONNX Runtime refuses the graph.
    pub fn load(runtime: &Runtime, model: Model) -> Result<Self, RuntimeError> {
        let options = SessionOptions { threads: model.threads };
        let sessions = (0..model.sessions.max(1)).map(|_| runtime.session(&model.onnx, options)).collect::<Result<Vec<_>, _>>()?;
        let (inputs, outputs) = (sessions[0].inputs().to_vec(), sessions[0].outputs().to_vec());
        Ok(Self {
            name: model.name,
            version: model.version,
            digest: model.digest,
            inputs,
            outputs,
            idle: Mutex::new(sessions),
            returned: Condvar::new(),
            quick: false,
            guard: None,
            postprocess: Postprocess::None {},
        })
    }

    /// From here on, requests whose values break the schema are refused.
    ///
    /// # Errors
    /// If not all that passes the schema feeds the model.
    pub fn guard(&mut self, schema: &Schema, id: SchemaId) -> Result<(), DataError> {
        self.guard = Some(Guard::new(schema, id, &self.inputs)?);
        Ok(())
    }

    /// Which schema requests are held to.
    pub fn schema(&self) -> Option<SchemaId> {
        self.guard.as_ref().map(|guard| guard.id)
    }

    /// Whether the values may be asked about.
    ///
    /// # Errors
    /// [`ServeError::Request`] with input, row, feature, value and rule.
    pub fn check(&self, inputs: &[Input<'_>]) -> Result<(), ServeError> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard.check(inputs))
    }

    /// From here on, requests may ask for labels, scores and whether they are accepted.
    ///
    /// # Errors
    /// If the thresholds or labels do not fit the model's first output.
    pub fn postprocess(&mut self, postprocess: Postprocess) -> Result<(), Fault> {
        postprocess.check("postprocess")?;
        if let Some(Dim::Fixed(outputs)) = self.outputs.first().and_then(|output| output.shape.last()) {
            postprocess.fits("postprocess", *outputs)?;
        }
        self.postprocess = postprocess;
        Ok(())
    }

    /// What becomes of the outputs.
    pub fn answers(&self) -> &Postprocess {
        &self.postprocess
    }

    /// Runs the model once on the caller's thread and notes whether it is quick.
    ///
    /// # Errors
    /// If the inputs do not fit or the library fails.
    pub fn warm(&mut self, inputs: &[Input<'_>]) -> Result<Duration, RuntimeError> {
        self.run(inputs, |_| ())?;
        let started = Instant::now();
        self.run(inputs, |_| ())?;
        let took = started.elapsed();
        self.quick = took < QUICK;
        Ok(took)
    }

    /// Whether an inference of one example may run where the request was read: it is quick, and has a session at once.
    pub fn is_quick(&self) -> bool {
        self.quick && !self.idle.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// What the model reads.
    pub fn inputs(&self) -> &[IoInfo] {
        &self.inputs
    }

    /// What the model answers.
    pub fn outputs(&self) -> &[IoInfo] {
        &self.outputs
    }

    /// One inference; waits for a session if all are in use. `read` sees the outputs without a copy.
    ///
    /// # Errors
    /// If the inputs do not fit or the library fails.
    pub fn run<R>(&self, inputs: &[Input<'_>], read: impl FnOnce(&[Output<'_>]) -> R) -> Result<R, RuntimeError> {
        let mut session = self.take();
        let outcome = session.run_view(inputs, read);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        self.returned.notify_one();
        outcome
    }

    fn take(&self) -> Session {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(session) = idle.pop() {
                return session;
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
