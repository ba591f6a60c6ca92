//! What is known of rows beside features and targets: whose they are, or where they come from.

use std::collections::BTreeMap;

/// Columns that are neither features nor targets, with a text for each row: to partition by, or to tell the entities apart that a
/// privacy budget protects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(BTreeMap<String, Vec<String>>);

impl Columns {
    /// Columns by name, each with one text for each row.
    #[must_use]
    pub fn new(columns: BTreeMap<String, Vec<String>>) -> Self {
        Self(columns)
    }

    /// The column of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// The rows of each value of the column, both in order of appearance.
    #[must_use]
    pub fn groups(&self, name: &str) -> Option<Vec<Vec<usize>>> {
        self.get(name).map(grouped)
    }

    /// Those of the rows named, in that order.
    ///
    /// # Panics
    /// If a row is not there.
    #[must_use]
    pub fn subset(&self, rows: &[usize]) -> Self {
        let pick = |values: &Vec<String>| rows.iter().map(|row| values[*row].clone()).collect();
        Self(self.0.iter().map(|(name, values)| (name.clone(), pick(values))).collect())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The positions of each value, both in order of appearance.
pub(crate) fn grouped<T: Ord>(values: &[T]) -> Vec<Vec<usize>> {
    let mut index = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (row, value) in values.iter().enumerate() {
        let at = *index.entry(value).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[at].push(row);
    }
    groups
}
