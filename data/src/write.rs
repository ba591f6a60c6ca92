//! Writing arrays that NumPy and [`load`](crate::load) read.

use std::{
    fs::{self, File, Permissions},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use ndarray::ArrayViewD;
use ndarray_npy::{WritableElement, WriteNpyExt as _};
use sapwood_models::{Dataset, Targets, Tensor, TensorData};
use tempfile::Builder;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::DataError;

/// Writes `y.npy` and an `.npy` for each feature, which is `x.npy` where there is one, into a folder, which is made if it is not there. Each file appears
/// whole or not at all.
///
/// # Errors
/// [`DataError::Io`]; [`DataError::Malformed`] if shape and values of a tensor disagree.
pub fn save_npy(folder: &Path, data: &Dataset) -> Result<(), DataError> {
    fs::create_dir_all(folder).map_err(DataError::io("create", folder))?;
    for (name, tensor) in data.x.iter() {
        whole(&folder.join(format!("{name}.npy")), |out, path| write_tensor(out, path, tensor))?;
    }
    whole(&folder.join("y.npy"), |out, path| write_targets(out, path, &data.y))
}

/// Writes named tensors as an `.npz` without compression, which appears whole or not at all.
///
/// # Errors
/// As [`save_npy`].
pub fn save_npz<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<(), DataError> {
    whole(path, |out, path| {
        let mut archive = ZipWriter::new(out);
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored).large_file(true);
        let broken = |e: zip::result::ZipError| DataError::Malformed { path: path.to_path_buf(), reason: e.to_string() };
        for (name, tensor) in tensors {
            archive.start_file(format!("{name}.npy"), options).map_err(broken)?;
            write_tensor(&mut archive, path, tensor)?;
        }
        archive.finish().map_err(broken)?;
        Ok(())
    })
}

/// Writes beside the path and renames, so that no reader and no crash sees half a file.
fn whole(path: &Path, write: impl FnOnce(&mut BufWriter<&File>, &Path) -> Result<(), DataError>) -> Result<(), DataError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As any file of this user: without this, nobody else could read it.
    let file =
        Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder).map_err(DataError::io("create a file in", folder))?;
    let mut out = BufWriter::new(file.as_file());
    write(&mut out, path)?;
    out.flush().map_err(DataError::io("write", path))?;
    drop(out);
    file.as_file().sync_all().map_err(DataError::io("write", path))?;
    file.persist(path).map_err(|e| DataError::io("write", path)(e.error))?;
    Ok(())
}

fn write_targets(out: impl Write, path: &Path, targets: &Targets) -> Result<(), DataError> {
    match targets {
        Targets::Classes(labels) => write_values(out, path, &[labels.len()], labels),
        Targets::Values(values) => write_tensor(out, path, values),
    }
}

fn write_tensor(out: impl Write, path: &Path, tensor: &Tensor) -> Result<(), DataError> {
    match &tensor.data {
        TensorData::F32(values) => write_values(out, path, &tensor.shape, values),
        TensorData::I64(values) => write_values(out, path, &tensor.shape, values),
        TensorData::I32(values) => write_values(out, path, &tensor.shape, values),
        TensorData::U8(values) => write_values(out, path, &tensor.shape, values),
        TensorData::I8(values) => write_values(out, path, &tensor.shape, values),
        TensorData::Bool(values) => write_values(out, path, &tensor.shape, values),
    }
}

fn write_values<T: WritableElement>(out: impl Write, path: &Path, shape: &[usize], values: &[T]) -> Result<(), DataError> {
    let malformed = |reason: String| DataError::Malformed { path: path.to_path_buf(), reason };
    let view = ArrayViewD::from_shape(shape, values).map_err(|e| malformed(e.to_string()))?;
    view.write_npy(out).map_err(|e| match e {
        ndarray_npy::WriteNpyError::Io(source) => DataError::io("write", path)(source),
        other => malformed(other.to_string()),
    })
}
