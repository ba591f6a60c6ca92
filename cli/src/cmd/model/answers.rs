//! A model in one of the two runtimes.

use sapwood_models::{Features, Forward, Model, Tensor};
use sapwood_runtime::{Runtime, Session, SessionOptions};

use super::Engine;
use crate::output::{Exit, Failure, OrFail};

/// Examples that pass at once.
const AT_ONCE: usize = 128;

pub(super) enum Answers {
    Burn(Forward),
    Ort(Session),
}

impl Answers {
    pub(super) fn new(model: &Model, engine: Engine) -> Result<Self, Failure> {
        Ok(match engine {
            Engine::Burn => Self::Burn(Forward::new(model).or_usage()?),
            Engine::Ort => {
                let runtime = Runtime::load(None).or_fail(Exit::NotFound).map_err(|f| f.hint("sapwood runtime install"))?;
                Self::Ort(runtime.session(&model.encode(), SessionOptions::default()).or_usage()?)
            }
        })
    }

    /// All outputs, by name, for all that is given at once.
    pub(super) fn run(&mut self, x: &Features) -> Result<Vec<(String, Tensor)>, Failure> {
        match self {
            Self::Burn(forward) => forward.run(&forward.feed(x).or_usage()?).or_usage(),
            Self::Ort(session) => {
                let read: Vec<_> = session.inputs().iter().map(|input| (input.name.clone(), input.element)).collect();
                let inputs = x.feed(read.iter().map(|(name, element)| (name.as_str(), *element))).or_usage()?;
                let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
                session.run(&inputs).or_usage()
            }
        }
    }

    /// The first output for all examples, so many at a time that memory suffices.
    pub(super) fn all(&mut self, x: &Features) -> Result<Tensor, Failure> {
        let rows: Vec<usize> = (0..x.rows()).collect();
        let mut all: Option<Tensor> = None;
        for rows in rows.chunks(AT_ONCE) {
            let part = x.take_rows(rows);
            let answer = match self {
                Self::Burn(forward) => forward.answer(&part).or_usage()?,
                Self::Ort(session) => session.answer(&part).or_usage()?,
            };
            match &mut all {
                None => all = Some(answer),
                Some(all) => {
                    if !all.append(&answer) {
                        return Err(Failure::usage("the model's first output is not float32 with an axis for the examples"));
                    }
                }
            }
        }
        all.ok_or_else(|| Failure::usage("the data has no example"))
    }
}
