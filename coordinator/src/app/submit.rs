//! From a run.toml to a run.

use std::collections::BTreeMap;

use sapwood_models::{Model, ModelError, train::Trainer};
use sapwood_privacy::ledger::Rho;
use sapwood_protocol::{
    Digest, Fault, RunId,
    fault::{Lack, Misuse},
    ledger,
    run::{Created, Run},
    spec::{PrivacyUnit, Spec},
    view::RunView,
};

use super::State;
use crate::{
    aggregate::write_parameters,
    drive::Life,
    objects::{ObjectError, Objects},
    release::{CheckJob, WorkError, measuring},
    store::{StoreError, StreamName, Submitted},
};

/// A run as it is asked for.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The text of run.toml.
    pub spec: String,
    /// The objects that it names, which are stored already.
    pub objects: BTreeMap<String, Digest>,
    /// The caller's own word: the same word submits the same run once. Empty: none.
    pub token: String,
}

/// More runs of one name are not looked for.
const MOST: u32 = 1_000_000;

impl State {
    /// Checks everything that can be known to fail before a node is asked, then begins the run.
    ///
    /// # Errors
    /// [`Misuse::Setting`] with the key in run.toml that is wrong.
    pub async fn submit_run(&self, submission: Submission) -> Result<RunView, Fault> {
        let mut spec = Spec::parse(&submission.spec)?;
        // Data sets that came as files go by their digest from here on.
        for name in [&mut spec.evaluate.data, &mut spec.release.calibration].into_iter().flatten() {
            if let Some(digest) = submission.objects.get(name) {
                *name = digest.to_string();
            }
        }
        let request = request_digest(&submission);
        // One at a time: the check that a token is new, and the choice of a name, must still hold at the commit.
        let _one = self.0.submitting.lock().await;
        if !submission.token.is_empty()
            && let Some(known) = self.store().submission(&submission.token).await?
        {
            if known.request != request {
                let why = format!("{:?} was used for another run; choose another one", submission.token);
                return Err(Misuse::Setting { key: "token".into(), why }.into());
            }
            return self.run(&known.stream.name().parse()?).await;
        }

        let object = |key: &str, file: &str| {
            let why = || format!("{file:?} was not stored; send it first");
            submission.objects.get(file).copied().ok_or_else(|| Fault::from(Misuse::Setting { key: key.to_owned(), why: why() }))
        };
        let model = object("model.file", &spec.model.file)?;
        let preprocess = spec.model.preprocess.as_deref().map(|file| object("model.preprocess", file)).transpose()?;
        if let Some(file) = spec.model.loss.graph.as_deref().filter(|_| spec.model.loss.digest().is_none()) {
            spec.model.loss = object("model.loss", file)?.into();
        }
        let schema = spec.data.schema.as_deref().map(|file| object("data.schema", file)).transpose()?;
        let (params, length) = self.prepare(&spec, model, preprocess, schema).await?;

        let run = self.name_for(&spec.name).await?;
        let (operators, noise) = (Vec::new(), None);
        // What cannot be is refused before anything is reserved.
        let machine =
            Run::create(Created { run: run.clone(), spec, model, preprocess, schema, params, length, noise, operators, at: self.now() })?;
        let stream = StreamName::run(&run);
        let privacy = &machine.created().spec.privacy;
        let (unit, key) = (privacy.unit, privacy.entity_key.clone());
        // All that the run may ever cost, before it begins; whatever happens behind this line over-counts.
        if let Some(plan) = machine.plan() {
            // Found by a test: costs are rounded up one by one, so the sum of the rounds' is more than the run's rounded up once.
            let round = Rho::cost(plan.rho_round).map_err(|fault| Misuse::Setting { key: "privacy".into(), why: fault.to_string() })?;
            let total = round.trillionths().saturating_mul(u64::from(plan.rounds));
            let reserve = ledger::Input::Reserve { run: run.clone(), total, key };
            self.ledgers().ask(unit, reserve).await?;
        }
        let submitted = (!submission.token.is_empty()).then_some(Submitted { token: submission.token, request, stream });
        if let Err(error) = self.create_run(machine, submitted).await? {
            if unit != PrivacyUnit::None && error.is_verdict() {
                self.settle(unit, run).await;
            }
            return Err(match error {
                StoreError::Conflict { what } => Lack::Resource { what: "the run's name", why: format!("{what}; try again") }.into(),
                other => Fault::from(other),
            });
        }
        self.run(&run).await
    }

    /// The initial parameters as an object, and how many there are.
    async fn prepare(
        &self,
        spec: &Spec,
        model: Digest,
        preprocess: Option<Digest>,
        schema: Option<Digest>,
    ) -> Result<(Digest, u64), Fault> {
        let (spec, objects, work) = (spec.clone(), self.objects().clone(), std::sync::Arc::clone(&self.0.shop.work));
        let _turn = self.0.shop.turn.acquire().await;
        let prepared = Life::block(move || {
            work.check(&CheckJob { spec: &spec, objects: &objects, model, preprocess, schema }).map_err(|error| match error {
                WorkError::Later(why) => Prepare::Fault(Lack::Resource { what: "the coordinator", why }.into()),
                WorkError::Failed(why) => Prepare::Fault(Misuse::Setting { key: "run.toml".into(), why }.into()),
                WorkError::Killed(killed) => Prepare::Killed(killed),
            })?;
            let parameters = initial(&spec, &objects, model)?;
            let digest = write_parameters(&objects, &parameters)?;
            Ok((digest, parameters.len() as u64))
        });
        match prepared.await {
            Ok(prepared) => Ok(prepared),
            Err(Prepare::Fault(fault)) => Err(fault),
            Err(Prepare::Killed(killed)) => Err(self.die(killed)),
        }
    }

    /// `NAME-1`, or the next number that is free.
    async fn name_for(&self, name: &str) -> Result<RunId, Fault> {
        let taken = self.store().streams("run", false).await?;
        let number = |row: &crate::store::StreamRow| row.name.name().strip_prefix(name)?.strip_prefix('-')?.parse::<u32>().ok();
        let mut next = taken.iter().filter_map(number).max().unwrap_or(0) + 1;
        // A run that reserved and never came to be has used its name up.
        while next < MOST && self.ledgers().knows(&format!("{name}-{next}").parse()?) {
            next += 1;
        }
        if next >= MOST {
            return Err(Misuse::Setting { key: "name".into(), why: "it was used too often; choose another one".into() }.into());
        }
        format!("{name}-{next}").parse()
    }
}

enum Prepare {
    Fault(Fault),
    Killed(sapwood_failpoint::Killed),
}

impl From<Fault> for Prepare {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ObjectError> for Prepare {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Killed(killed) => Self::Killed(killed),
            other => Self::Fault(other.into()),
        }
    }
}

/// The model's trained values. The trainer takes a dry step first, so that a model which cannot be trained is refused here,
/// by operator and node, and not on every node of the fleet; so is one that mixes the examples of a batch, under a budget for each.
fn initial(spec: &Spec, objects: &Objects, model: Digest) -> Result<Vec<f32>, Prepare> {
    let refuse = |why: String| Fault::from(Misuse::Setting { key: "model.file".into(), why });
    let model = Model::decode(&objects.read(model)?).map_err(|error| refuse(chain(&error)))?;
    let config = measuring(&spec.model, objects).map_err(|error| refuse(chain(&error)))?;
    let trainer = Trainer::new(&model, config).map_err(|error| match error {
        ModelError::LossGraph(_) => Misuse::Setting { key: "model.loss".into(), why: chain(&error) }.into(),
        error => refuse(chain(&error)),
    })?;
    // Clipping one unit by one protects it only if no other moves its gradient.
    if matches!(spec.privacy.unit, PrivacyUnit::Example | PrivacyUnit::Entity) {
        trainer.check_units().map_err(|error| refuse(chain(&error)))?;
    }
    Ok(trainer.parameters())
}

/// An error with its causes, in one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn request_digest(submission: &Submission) -> Digest {
    let mut hasher = sapwood_protocol::Hasher::default();
    let mut word = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    word(submission.spec.as_bytes());
    for (file, digest) in &submission.objects {
        word(file.as_bytes());
        word(digest.as_bytes());
    }
    hasher.finish()
}
