//! The wire version: two sides talk in the newest version that both speak.

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Incompatibility};

/// The wire versions that one side speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Oldest.
    pub min: u32,
    /// Newest.
    pub max: u32,
}

/// What this build speaks.
pub const WIRE: Versions = Versions { min: 1, max: 1 };

/// The newest version in common.
///
/// # Errors
/// [`Incompatibility::WireVersion`] with both ranges if there is none, which is also so for an empty range.
pub fn negotiate(ours: Versions, theirs: Versions) -> Result<u32, Fault> {
    let newest = ours.max.min(theirs.max);
    let oldest = ours.min.max(theirs.min);
    if newest < oldest {
        let fault = Incompatibility::WireVersion { theirs_min: theirs.min, theirs_max: theirs.max, ours_min: ours.min, ours_max: ours.max };
        return Err(fault.into());
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_wins() {
        let v = |min, max| Versions { min, max };
        assert_eq!(negotiate(v(1, 3), v(2, 5)).unwrap(), 3);
        assert_eq!(negotiate(v(2, 5), v(1, 3)).unwrap(), 3);
        assert_eq!(negotiate(WIRE, WIRE).unwrap(), WIRE.max);
    }

    #[test]
    fn strangers_are_told_both_ranges() {
        let v = |min, max| Versions { min, max };
        let fault = negotiate(v(3, 4), v(1, 2)).unwrap_err();
        assert_eq!(fault.blame(), crate::Blame::Version);
        let text = fault.to_string();
        assert!(text.contains("1–2") && text.contains("3–4"), "{text}");
        assert!(negotiate(v(1, 9), v(5, 4)).is_err());
    }
}
