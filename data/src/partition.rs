//! Dealing the rows of a data set to simulated nodes.
//!
//! The same data, nodes, partition and seed give the same rows. Each row goes to one node, and
//! each node gets one at least.

use std::{collections::BTreeMap, fmt, str::FromStr};

use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Gamma};
use sapwood_models::{Dataset, Targets};
use serde::{Deserialize, Serialize};

use crate::{Columns, DataError, columns::grouped};

/// Draws of a Dirichlet partition before giving up on one that leaves no node empty.
const MAX_DRAWS: usize = 100;

/// How rows are dealt. Written `iid`, `dirichlet:0.5` or `column:block`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Partition {
    /// At random, in parts whose sizes differ by one at most.
    Iid,
    /// Label skew: each class is spread over the nodes in proportions drawn from a symmetric
    /// Dirichlet distribution of this concentration (Hsu, Qi and Brown 2019, arXiv:1909.06335);
    /// the smaller, the more skewed.
    Dirichlet(f64),
    /// All rows of one value of this column stay together: with as many values as nodes, node `i`
    /// gets the `i`-th value in order of appearance; with more, values are dealt at random,
    /// largest first to the node with the fewest rows. `label` means the class.
    Column(String),
}

/// Rows of each node, ascending.
///
/// # Errors
/// [`DataError::Partition`] if some node would get no row, a column does not exist or has fewer
/// values than there are nodes, or a Dirichlet partition is asked of data without classes.
pub fn partition(data: &Dataset, columns: &Columns, nodes: usize, how: &Partition, seed: u64) -> Result<Vec<Vec<usize>>, DataError> {
    if nodes == 0 {
        return Err(refuse("there must be one node at least"));
    }
    if data.len() < nodes {
        return Err(refuse(format!("{nodes} nodes need {nodes} rows at least, there are {}", data.len())));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut parts = match how {
        Partition::Iid => iid(data.len(), nodes, &mut rng),
        Partition::Dirichlet(concentration) => dirichlet(data, nodes, *concentration, &mut rng)?,
        Partition::Column(name) => by_column(data, columns, name, nodes, &mut rng)?,
    };
    for part in &mut parts {
        part.sort_unstable();
    }
    Ok(parts)
}

fn refuse(reason: impl Into<String>) -> DataError {
    DataError::Partition { reason: reason.into() }
}

fn iid(rows: usize, nodes: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut order: Vec<_> = (0..rows).collect();
    order.shuffle(rng);
    (0..nodes).map(|node| order.iter().copied().skip(node).step_by(nodes).collect()).collect()
}

fn dirichlet(data: &Dataset, nodes: usize, concentration: f64, rng: &mut ChaCha8Rng) -> Result<Vec<Vec<usize>>, DataError> {
    let Targets::Classes(labels) = &data.y else {
        return Err(refuse("dirichlet spreads classes, and this data has real targets; use iid or column"));
    };
    let gamma = positive(concentration).and_then(|a| Gamma::new(a, 1.0).ok());
    let gamma = gamma.ok_or_else(|| refuse(format!("dirichlet:{concentration} must be a positive number")))?;
    let mut classes = BTreeMap::<i64, Vec<usize>>::new();
    for (row, label) in labels.iter().enumerate() {
        classes.entry(*label).or_default().push(row);
    }
    for _ in 0..MAX_DRAWS {
        let mut parts = vec![Vec::new(); nodes];
        for rows in classes.values_mut() {
            rows.shuffle(rng);
            // Independent gamma variates, normalised, are a Dirichlet variate.
            let weights: Vec<_> = (0..nodes).map(|_| gamma.sample(rng)).collect();
            spread(rows, &weights, &mut parts);
        }
        if parts.iter().all(|part| !part.is_empty()) {
            return Ok(parts);
        }
    }
    Err(refuse(format!(
        "dirichlet:{concentration} left some of {nodes} nodes without a row in {MAX_DRAWS} draws; \
         use a larger concentration, fewer nodes or another seed"
    )))
}

/// Cuts `rows` in proportion to `weights`, at the rounded cumulative sums, so every row is dealt.
fn spread(rows: &[usize], weights: &[f64], parts: &mut [Vec<usize>]) {
    let total: f64 = weights.iter().sum();
    let last = weights.len() - 1;
    let (mut sum, mut from) = (0.0, 0);
    for (node, weight) in weights.iter().enumerate() {
        sum += weight;
        // Weights so small that all of them underflow leave the class to the last node.
        let share = if total > 0.0 { sum / total } else { 0.0 };
        let to = if node == last { rows.len() } else { (share * rows.len() as f64).round() as usize };
        let to = to.clamp(from, rows.len());
        parts[node].extend_from_slice(&rows[from..to]);
        from = to;
    }
}

fn by_column(data: &Dataset, columns: &Columns, name: &str, nodes: usize, rng: &mut ChaCha8Rng) -> Result<Vec<Vec<usize>>, DataError> {
    let mut groups = groups(data, columns, name)?;
    if groups.len() < nodes {
        return Err(refuse(format!("column `{name}` has {} values, too few for {nodes} nodes; use that many nodes at most", groups.len())));
    }
    if groups.len() == nodes {
        return Ok(groups);
    }
    // Shuffled first, so that the seed decides among groups of one size.
    groups.shuffle(rng);
    groups.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    let mut parts = vec![Vec::new(); nodes];
    for rows in groups {
        if let Some(smallest) = parts.iter_mut().min_by_key(|part| part.len()) {
            smallest.extend(rows);
        }
    }
    Ok(parts)
}

/// Rows of each value of a column, or of each class, in order of appearance.
fn groups(data: &Dataset, columns: &Columns, name: &str) -> Result<Vec<Vec<usize>>, DataError> {
    let groups = match (columns.groups(name), &data.y) {
        (Some(groups), _) => groups,
        (None, Targets::Classes(classes)) if name == "label" => grouped(classes),
        _ => {
            let mut known: Vec<_> = columns.names().collect();
            if matches!(data.y, Targets::Classes(_)) {
                known.push("label");
            }
            let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            return Err(refuse(format!("there is no column `{name}` to partition by; {known}")));
        }
    };
    let rows: usize = groups.iter().map(Vec::len).sum();
    if rows != data.len() {
        return Err(refuse(format!("column `{name}` has {rows} values for {} rows", data.len())));
    }
    Ok(groups)
}

fn positive(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then_some(value)
}

impl FromStr for Partition {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        match text.split_once(':') {
            None if text == "iid" => Ok(Self::Iid),
            Some(("dirichlet", number)) => {
                let concentration = number.parse().ok().and_then(positive);
                let concentration =
                    concentration.ok_or_else(|| refuse(format!("`{text}`: the concentration must be a positive number")))?;
                Ok(Self::Dirichlet(concentration))
            }
            Some(("column", name)) if !name.is_empty() => Ok(Self::Column(name.to_owned())),
            _ => Err(refuse(format!("`{text}` is no partition; use iid, dirichlet:A or column:NAME"))),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iid => f.write_str("iid"),
            Self::Dirichlet(concentration) => write!(f, "dirichlet:{concentration}"),
            Self::Column(name) => write!(f, "column:{name}"),
        }
    }
}

impl TryFrom<String> for Partition {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        text.parse()
    }
}

impl From<Partition> for String {
    fn from(partition: Partition) -> Self {
        partition.to_string()
    }
}

#[cfg(test)]
mod tests;
