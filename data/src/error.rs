//! What can be wrong with data: which file, which row, which column, and what to do.

use std::{io, path::PathBuf};

use sapwood_models::DataFault;

use crate::Violation;

/// A refusal of data, or of how it is described.
///
/// Rows and columns of arrays count from 0, a column being the flat index within one example;
/// lines of text count from 1, as editors do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A kind of file that is not read.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported, and what to use.
        reason: String,
    },
    /// An array that has to be there and is not.
    #[error("{} has no array `{array}`; the data is two arrays, `x` and `y`, or a folder of images for each class", path.display())]
    MissingArray {
        /// The file or folder.
        path: PathBuf,
        /// Name of the array.
        array: String,
    },
    /// A column that was asked for and is not there.
    #[error("{file} has no column `{column}`; it has {known}")]
    NoColumn {
        /// The file, folder or data set.
        file: String,
        /// Name of the column.
        column: String,
        /// What it has instead.
        known: String,
    },
    /// A file that breaks its own format.
    #[error("{} is damaged or not what its name says: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// More data than the limit, as the file is or as it would unpack.
    #[error("{} has {bytes} bytes of data, more than the limit of {limit}; split it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes that it has or announces.
        bytes: u64,
        /// Most bytes accepted.
        limit: u64,
    },
    /// An array of a type that is not read.
    #[error(
        "{}: array `{array}` is of type {found}; save it as float32, float64, uint8, int8, int16, int32 or int64 in little-endian order",
        path.display()
    )]
    Type {
        /// The file.
        path: PathBuf,
        /// Name of the array.
        array: String,
        /// Its type descriptor.
        found: String,
    },
    /// A value of an array that cannot be used.
    #[error("{}: array `{array}`, row {row}, column {column}: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Name of the array.
        array: String,
        /// Row, from 0.
        row: usize,
        /// Flat index in the row, from 0.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A cell of a table that cannot be used.
    #[error("{}: line {line}, column `{column}`: {reason}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// Examples that contradict each other, the schema or the model.
    #[error("{file}: {fault}")]
    Fault {
        /// The file, folder or data set.
        file: String,
        /// What is wrong, with its row and column.
        fault: DataFault,
    },
    /// A value that breaks the schema.
    #[error("{file}: {violation}")]
    Violation {
        /// The file, folder or data set.
        file: String,
        /// Row, feature, value and rule.
        violation: Violation,
    },
    /// An input of the schema without an array.
    #[error("{file} has no array for input `{input}` of the schema; it has {known}{hint}")]
    NoInput {
        /// The file, folder or data set.
        file: String,
        /// Name of the input.
        input: String,
        /// Names of its arrays.
        known: String,
        /// Which of them may have been meant.
        hint: String,
    },
    /// A schema that is malformed or contradicts itself.
    #[error("the schema is not usable: {reason}")]
    Schema {
        /// What is wrong.
        reason: String,
    },
    /// A source that needs a schema and has none.
    #[error("{} needs a schema with a [csv] section: it does not say which column is which", path.display())]
    SchemaNeeded {
        /// The file.
        path: PathBuf,
    },
    /// A source that cannot be parsed.
    #[error("`{text}` is no data source: {reason}")]
    Source {
        /// What was given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// A partition that cannot be parsed or made.
    #[error("the data cannot be partitioned: {reason}")]
    Partition {
        /// Why not, and what would do.
        reason: String,
    },
}

impl DataError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
