use proptest::prelude::*;
use sapwood_models::Tensor;

use super::*;
use crate::{digits, load_columns};

fn digits_1_to_10() -> (Dataset, Columns) {
    load_columns(&"digits:1-10".parse().unwrap(), None, &[]).unwrap()
}

fn classes(labels: Vec<i64>) -> Dataset {
    Dataset { x: Tensor::f32([labels.len(), 1], vec![0.0; labels.len()]).unwrap().into(), y: Targets::Classes(labels) }
}

proptest! {
    /// Every row is dealt once, no part is empty, and the same seed deals the same.
    #[test]
    fn partitions_are_partitions(
        labels in prop::collection::vec(0i64..5, 1..200),
        nodes in 1usize..12,
        how in prop_oneof![
            Just(Partition::Iid),
            (0.01f64..100.0).prop_map(Partition::Dirichlet),
            Just(Partition::Column("label".into())),
        ],
        seed: u64,
    ) {
        let data = classes(labels);
        let columns = Columns::default();
        if let Ok(parts) = partition(&data, &columns, nodes, &how, seed) {
            prop_assert_eq!(parts.len(), nodes);
            prop_assert!(parts.iter().all(|p| !p.is_empty() && p.is_sorted()));
            let mut rows = parts.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..data.len()).collect::<Vec<_>>());
            prop_assert_eq!(parts, partition(&data, &columns, nodes, &how, seed).unwrap());
        } else {
            // Iid fails only when there are fewer rows than nodes.
            prop_assert!(how != Partition::Iid || data.len() < nodes);
        }
    }
}

#[test]
fn iid_parts_differ_by_one_row_and_by_seed() {
    let (data, columns) = digits_1_to_10();
    let deal = |seed| partition(&data, &columns, 10, &Partition::Iid, seed).unwrap();
    let sizes: Vec<_> = deal(1).iter().map(Vec::len).collect();
    assert_eq!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap(), 1);
    assert_ne!(deal(1), deal(2));
}

/// The share of the commonest class, averaged over nodes, is near 1/10 without skew.
#[test]
fn a_smaller_concentration_is_more_skewed() {
    let (data, columns) = digits_1_to_10();
    let Targets::Classes(labels) = &data.y else { unreachable!() };
    let skew = |a: f64| {
        let parts = partition(&data, &columns, 10, &Partition::Dirichlet(a), 7).unwrap();
        let top = |rows: &Vec<usize>| {
            let counts = (0..10).map(|c| rows.iter().filter(|r| labels[**r] == c).count());
            counts.max().unwrap() as f64 / rows.len() as f64
        };
        parts.iter().map(top).sum::<f64>() / 10.0
    };
    let (flat, skewed) = (skew(1000.0), skew(0.1));
    assert!(flat < 0.15, "{flat}");
    assert!(skewed > 0.4, "{skewed}");
}

#[test]
fn ten_nodes_of_ten_blocks_hold_one_block_each() {
    let (data, columns) = digits_1_to_10();
    let parts = partition(&data, &columns, 10, &"column:block".parse().unwrap(), 3).unwrap();
    for (node, rows) in parts.iter().enumerate() {
        assert_eq!(*rows, digits::rows(node + 1).collect::<Vec<_>>());
    }
}

#[test]
fn more_groups_than_nodes_are_dealt_whole_and_evenly() {
    let (data, columns) = load_columns(&"digits".parse().unwrap(), None, &[]).unwrap();
    let parts = partition(&data, &columns, 7, &"column:block".parse().unwrap(), 3).unwrap();
    let blocks = columns.get("block").unwrap();
    for block in 1..=14 {
        let holders = parts.iter().filter(|rows| rows.iter().any(|r| blocks[*r] == block.to_string()));
        assert_eq!(holders.count(), 1, "block {block}");
    }
    assert!(parts.iter().all(|rows| (240..=270).contains(&rows.len())));
}

#[test]
fn what_cannot_be_dealt_is_refused() {
    let (data, columns) = digits_1_to_10();
    let values = Dataset { y: Targets::Values(Tensor::f32([1, 1], vec![0.0]).unwrap()), ..classes(vec![0]) };
    let cases = [
        (&data, 0, "iid", "one node"),
        (&data, 2000, "iid", "2000 rows"),
        (&data, 11, "column:block", "10 values"),
        (&data, 2, "column:store", "it has block, label"),
        (&data, 1000, "dirichlet:0.01", "larger concentration"),
        (&values, 1, "dirichlet:1", "real targets"),
        (&values, 1, "column:label", "it has block"),
    ];
    for (data, nodes, how, reason) in cases {
        let refused = partition(data, &columns, nodes, &how.parse().unwrap(), 0).unwrap_err().to_string();
        assert!(refused.contains(reason), "{how}: {refused}");
    }
}

#[test]
fn names_are_read_and_written_alike() {
    for text in ["iid", "dirichlet:0.5", "column:block"] {
        assert_eq!(text.parse::<Partition>().unwrap().to_string(), text);
    }
    for bad in
        ["", "iid:1", "dirichlet", "dirichlet:", "dirichlet:0", "dirichlet:-1", "dirichlet:inf", "dirichlet:nan", "column:", "shards:2"]
    {
        assert!(matches!(bad.parse::<Partition>(), Err(DataError::Partition { .. })), "{bad}");
    }
}
