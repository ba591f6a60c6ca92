use proptest::prelude::*;

use super::*;
use crate::wire;

#[test]
fn only_8_to_32_bits_are_a_ring() {
    for bits in [0, 1, 7, 33, 64, 255] {
        assert_eq!(Bits::new(bits), Err(Fault::Bits { bits }));
    }
    assert_eq!(Bits::new(32), Ok(Bits::FULL));
    assert_eq!(Bits::new(8).unwrap().mask(), 0xff);
}

#[test]
fn centring_is_twos_complement_of_b_bits() {
    let b8 = Bits::new(8).unwrap();
    assert_eq!([0, 1, 127, 128, 255].map(|lane| b8.centre(lane)), [0, 1, 127, -128, -1]);
    assert_eq!(b8.centre(0xffff_ff80), -128, "bits above b are ignored");
    assert_eq!(Bits::FULL.centre(0x8000_0000), i32::MIN);
}

#[test]
fn a_refused_vector_leaves_the_sum_as_it_was() {
    let bits = Bits::new(12).unwrap();
    let mut sum = Accumulator::new(3, bits, 2);
    let one = wire::pack(&[1, 2, 3], bits).unwrap();
    sum.add_packed(&one).unwrap();
    let before: Vec<u32> = sum.residues().collect();

    assert_eq!(sum.add_packed(&one[1..]), Err(Fault::Length { what: "bytes of a packed vector", expected: 5, actual: 4 }));
    let mut padded = one.clone();
    padded[4] |= 0x10;
    assert_eq!(sum.add_packed(&padded), Err(Fault::Padding));
    assert_eq!((sum.residues().collect::<Vec<_>>(), sum.added()), (before, 1));

    sum.add_packed(&one).unwrap();
    assert_eq!(sum.add_packed(&one), Err(Fault::Full { most: 2 }));
    assert_eq!(sum.residues().collect::<Vec<_>>(), [2, 4, 6]);
}

#[test]
fn sums_of_different_shape_do_not_merge() {
    let b = |bits| Bits::new(bits).unwrap();
    let mut sum = Accumulator::new(3, b(12), 2);
    assert_eq!(sum.merge(&Accumulator::new(4, b(12), 2)), Err(Fault::Mismatch));
    assert_eq!(sum.merge(&Accumulator::new(3, b(13), 2)), Err(Fault::Mismatch));
    let mut full = Accumulator::new(1, b(8), 3);
    for _ in 0..3 {
        full.add_packed(&[1]).unwrap();
    }
    let mut other = Accumulator::new(1, b(8), 3);
    other.add_packed(&[1]).unwrap();
    assert_eq!(other.merge(&full), Err(Fault::Full { most: 3 }));
}

fn vectors() -> impl Strategy<Value = (u8, Vec<Vec<u32>>)> {
    (8u8..=32, 0usize..40, 1usize..8).prop_flat_map(|(bits, len, n)| {
        let lane = 0..=(u32::MAX >> (32 - bits));
        (Just(bits), prop::collection::vec(prop::collection::vec(lane, len), n))
    })
}

proptest! {
    /// Sums agree with integers of 128 bits modulo 2^b, however the bytes are cut and the vectors are grouped into shards.
    #[test]
    fn sums_are_exact_modulo_2_to_the_b((bits, vectors) in vectors(), cut in 1usize..64, split in 0usize..8) {
        let bits = Bits::new(bits).unwrap();
        let len = vectors[0].len();
        let most = vectors.len() as u32;
        let mut left = Accumulator::new(len, bits, most);
        let mut right = Accumulator::new(len, bits, most);
        for (i, vector) in vectors.iter().enumerate() {
            let bytes = wire::pack(vector, bits).unwrap();
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            if i < split { left.add_chunks(&pieces).unwrap() } else { right.add_chunks(&pieces).unwrap() }
        }
        left.merge(&right).unwrap();
        prop_assert_eq!(left.added(), most);
        let modulus = 1i128 << bits.get();
        for (i, (residue, centred)) in left.residues().zip(left.centred()).enumerate() {
            let sum: i128 = vectors.iter().map(|vector| i128::from(vector[i])).sum();
            prop_assert_eq!(i128::from(residue), sum % modulus);
            let centre = (sum + modulus / 2).rem_euclid(modulus) - modulus / 2;
            prop_assert_eq!(i128::from(centred), centre);
        }
    }
}
