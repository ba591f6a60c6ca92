//! Models and data from files.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use sapwood_data::{Schema, Source};
use sapwood_models::{Dataset, Model, forward::Forward};

use super::DataArgs;
use crate::output::{Exit, Failure, OrFail};

/// Examples that pass through a preprocessing graph at once.
const AT_ONCE: usize = 256;
/// Larger files are no models that a node could train.
const MAX_MODEL: u64 = 2 << 30;

pub(crate) fn read_model(path: &Path) -> Result<Model, Failure> {
    let name = path.display();
    let size = fs::metadata(path).map_err(|e| Failure::new(Exit::NotFound, format!("{name}: {e}")))?.len();
    if size > MAX_MODEL {
        return Err(Failure::usage(format!("{name} has {size} bytes: more than the 2 GiB that an ONNX file can have")));
    }
    let bytes = fs::read(path).map_err(|e| Failure::new(Exit::NotFound, format!("{name}: {e}")))?;
    Model::decode(&bytes).map_err(|e| Failure::usage(format!("{name}: {}", crate::output::chain(&e))))
}

/// Whole or not at all: a full disk leaves no half of a model.
pub(crate) fn write_model(path: &Path, model: &Model) -> Result<u64, Failure> {
    let bytes = model.encode();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = |e: std::io::Error| Failure::usage(format!("{} cannot be written: {e}", path.display()));
    // As any file of this user: without this, nobody else could read it.
    let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o666)).tempfile_in(folder).map_err(fail)?;
    std::io::Write::write_all(&mut file, &bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(bytes.len() as u64)
}

pub(crate) fn read_data(data: &str, schema: Option<&Path>, preprocess: Option<&Path>) -> Result<Dataset, Failure> {
    let source: Source = data.parse().or_usage()?;
    let schema = schema.map(Schema::read).transpose().or_usage()?;
    let raw = sapwood_data::load(&source, schema.as_ref()).or_usage()?;
    let Some(path) = preprocess else { return Ok(raw) };
    let x = Forward::new(&read_model(path)?).and_then(|graph| graph.features(&raw.x, AT_ONCE)).or_usage()?;
    Ok(Dataset { x, y: raw.y })
}

impl DataArgs {
    pub(super) fn read(&self) -> Result<Dataset, Failure> {
        read_data(&self.data, self.schema.as_deref(), self.preprocess.as_deref())
    }

    /// Names of the classes, where the data has them.
    pub(super) fn classes(&self) -> Result<Vec<String>, Failure> {
        let source: Source = self.data.parse().or_usage()?;
        Ok(sapwood_data::class_names(&source).or_usage()?.unwrap_or_default())
    }
}
