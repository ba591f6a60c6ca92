//! The vendored handwritten digits: 1,797 images of 8 × 8 pixels of 0..=16, in 14 form blocks.
//!
//! E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning
//! Repository, CC BY 4.0; see `data/README.md`. The blocks are forms, not persons: 13 people wrote
//! them.

use std::io::Read;

use flate2::read::GzDecoder;
use sapwood_models::{Dataset, Targets, Tensor, TensorData};

const FILE: &[u8] = include_bytes!("../digits.csv.gz");
const PIXELS: usize = 64;

/// Rows of the data set.
pub const LEN: usize = 1797;

/// First row of each form block, and the end of the last one: block `n` (from 1) holds the rows
/// `BLOCKS[n - 1]..BLOCKS[n]`.
pub const BLOCKS: [usize; 15] = [0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667, 1797];

/// Number of form blocks.
pub const BLOCK_COUNT: usize = BLOCKS.len() - 1;

/// All images, raw: `x` is `[1797, 1, 8, 8]` of 0..=16, `y` the digits.
#[must_use]
pub fn load() -> Dataset {
    let (pixels, labels) = parse();
    dataset(pixels, labels)
}

/// The images of one form block, from 1 to 14.
///
/// # Panics
/// If there is no such block, as slice indexing does.
#[must_use]
pub fn block(n: usize) -> Dataset {
    blocks([n])
}

/// The images of several form blocks (each from 1 to 14), in the order given.
///
/// # Panics
/// If there is no such block, as slice indexing does.
#[must_use]
pub fn blocks(numbers: impl IntoIterator<Item = usize>) -> Dataset {
    let rows: Vec<_> = numbers.into_iter().flat_map(rows).collect();
    load().subset(&rows)
}

/// Rows of one form block, from 1 to 14.
///
/// # Panics
/// If there is no such block, as slice indexing does.
#[must_use]
pub fn rows(block: usize) -> std::ops::Range<usize> {
    assert!((1..=BLOCK_COUNT).contains(&block), "the form blocks are 1 to {BLOCK_COUNT}, not {block}");
    BLOCKS[block - 1]..BLOCKS[block]
}

fn dataset(pixels: Vec<f32>, labels: Vec<i64>) -> Dataset {
    let x = Tensor { shape: vec![labels.len(), 1, 8, 8], data: TensorData::F32(pixels) };
    Dataset { x: x.into(), y: Targets::Classes(labels) }
}

fn parse() -> (Vec<f32>, Vec<i64>) {
    let mut text = String::new();
    let file = GzDecoder::new(FILE).read_to_string(&mut text);
    file.expect("the vendored file is part of the program and read whole by its tests");
    let (mut pixels, mut labels) = (Vec::with_capacity(LEN * PIXELS), Vec::with_capacity(LEN));
    for line in text.lines() {
        let mut numbers = line.split(',').map(|n| n.parse::<u8>().expect("the file holds small numbers"));
        pixels.extend(numbers.by_ref().take(PIXELS).map(f32::from));
        labels.push(i64::from(numbers.next().expect("each line ends in a label")));
    }
    (pixels, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(data: &Dataset) -> &[i64] {
        let Targets::Classes(labels) = &data.y else { panic!("digits are classes") };
        labels
    }

    #[test]
    fn the_whole_file_is_read() {
        let data = load();
        assert_eq!(data.x.only().unwrap().shape, [LEN, 1, 8, 8]);
        data.check(Some(sapwood_models::dataset::Known::classes(10))).unwrap();
        let pixels = data.x.only().unwrap().as_f32().unwrap();
        assert!(pixels.iter().all(|p| (0.0..=16.0).contains(p) && p.fract() == 0.0));
        assert_eq!(pixels[..8], [0.0, 0.0, 5.0, 13.0, 9.0, 1.0, 0.0, 0.0]);
        // Counts of the ten classes, as scikit-learn documents them.
        let count = |d| labels(&data).iter().filter(|l| **l == d).count();
        assert_eq!((0..10).map(count).collect::<Vec<_>>(), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    }

    /// Forms open with 0 to 9; no other boundary in the file would give fourteen such openings of
    /// blocks between 114 and 139 rows.
    #[test]
    fn every_block_opens_like_a_form() {
        let data = load();
        for n in 1..=BLOCK_COUNT {
            let rows = rows(n);
            assert!((114..=139).contains(&rows.len()), "block {n}");
            assert_eq!(labels(&data)[rows.clone()][..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "block {n}");
            let counts = (0..10).map(|d| labels(&data)[rows.clone()].iter().filter(|l| **l == d).count());
            assert!(counts.clone().all(|c| (9..=14).contains(&c)), "block {n}: {:?}", counts.collect::<Vec<_>>());
        }
        assert_eq!(BLOCKS[BLOCK_COUNT], LEN);
    }

    #[test]
    fn blocks_are_the_rows_between_boundaries() {
        let data = load();
        assert_eq!(block(2), data.subset(&(130..256).collect::<Vec<_>>()));
        assert_eq!(blocks(1..=14), data);
        assert_eq!(blocks(12..=14).len(), 382);
    }
}
