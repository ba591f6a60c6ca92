//! How a user names data.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{DataError, digits::BLOCK_COUNT};

/// Where data is: a path, or the vendored digits.
///
/// Written `digits`, `digits:11`, `digits:1-10`, `digits:1-4,7-14`, or as a path: a folder with
/// `x.npy` and `y.npy`, a folder of images with a folder for each class, an `.npz` with arrays `x` and `y`, or a `.csv` with a schema.
/// A folder that is called `digits` is written `./digits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// A file or folder.
    Path(PathBuf),
    /// Form blocks of the vendored digits.
    Digits(Blocks),
}

/// A non-empty set of form blocks of the digits, each from 1 to 14.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks(Vec<usize>);

impl Blocks {
    /// All fourteen.
    #[must_use]
    pub fn all() -> Self {
        Self((1..=BLOCK_COUNT).collect())
    }

    /// The blocks of these numbers, in ascending order.
    ///
    /// # Errors
    /// [`DataError::Source`] if there is none, one twice, or one that does not exist.
    pub fn new(numbers: impl IntoIterator<Item = usize>) -> Result<Self, DataError> {
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort_unstable();
        let refuse = |reason: String| DataError::Source { text: format!("digits:{numbers:?}"), reason };
        if numbers.is_empty() {
            return Err(refuse("it names no block".to_owned()));
        }
        if numbers.windows(2).any(|w| w[0] == w[1]) {
            return Err(refuse("it names a block twice".to_owned()));
        }
        if let Some(bad) = numbers.iter().find(|n| !(1..=BLOCK_COUNT).contains(*n)) {
            return Err(refuse(format!("there is no block {bad}; the blocks are 1 to {BLOCK_COUNT}")));
        }
        Ok(Self(numbers))
    }

    /// Their numbers, ascending.
    #[must_use]
    pub fn numbers(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for Blocks {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let refuse = |reason: &str| DataError::Source { text: format!("digits:{text}"), reason: reason.to_owned() };
        let number = |part: &str| match part.trim().parse::<usize>() {
            // Bounded before it becomes a range.
            Ok(n) if n <= BLOCK_COUNT => Ok(n),
            _ => Err(refuse(&format!("`{part}` is no block; the blocks are 1 to {BLOCK_COUNT}, as in digits:1-10 or digits:1,3"))),
        };
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(refuse(&format!("`{part}` runs backwards")));
            }
            numbers.extend(first..=last);
        }
        Self::new(numbers)
    }
}

impl fmt::Display for Blocks {
    /// Runs are written as ranges: `1-4,7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for run in self.0.chunk_by(|a, b| a + 1 == *b) {
            match run {
                [only] => write!(f, "{comma}{only}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
            comma = ",";
        }
        Ok(())
    }
}

impl FromStr for Source {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        if text == "digits" {
            return Ok(Self::Digits(Blocks::all()));
        }
        if let Some(blocks) = text.strip_prefix("digits:") {
            return Ok(Self::Digits(blocks.parse()?));
        }
        if text.is_empty() {
            return Err(DataError::Source { text: String::new(), reason: "name a file, a folder or `digits`".to_owned() });
        }
        Ok(Self::Path(PathBuf::from(text)))
    }
}

impl Source {
    /// The same source with a relative path taken from `folder`, where the file that names it lies.
    #[must_use]
    pub fn relative_to(self, folder: &Path) -> Self {
        match self {
            Self::Path(path) => Self::Path(folder.join(path)),
            digits => digits,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Digits(blocks) if *blocks == Blocks::all() => f.write_str("digits"),
            Self::Digits(blocks) => write!(f, "digits:{blocks}"),
        }
    }
}

impl TryFrom<String> for Source {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_written_alike() {
        for text in ["digits", "digits:11", "digits:1-10", "digits:1-4,7,9-14", "a/b.npz", "./digits"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!("digits:1-14".parse::<Source>().unwrap().to_string(), "digits");
        assert_eq!("digits:3,1,2".parse::<Source>().unwrap().to_string(), "digits:1-3");
    }

    #[test]
    fn blocks_that_do_not_exist_are_refused() {
        for bad in ["digits:", "digits:0", "digits:15", "digits:3-1", "digits:1,1", "digits:1-99999999999", "digits:x", ""] {
            assert!(matches!(bad.parse::<Source>(), Err(DataError::Source { .. })), "{bad}");
        }
    }

    #[test]
    fn paths_are_taken_from_the_file_that_names_them() {
        let at = |text: &str| text.parse::<Source>().unwrap().relative_to(Path::new("/runs"));
        assert_eq!(at("x.npz").to_string(), "/runs/x.npz");
        assert_eq!(at("/x.npz").to_string(), "/x.npz");
        assert_eq!(at("digits:1").to_string(), "digits:1");
    }
}
