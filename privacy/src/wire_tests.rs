use proptest::prelude::*;

use super::*;

fn b(bits: u8) -> Bits {
    Bits::new(bits).unwrap()
}

/// The layout, written out by hand: 0xABC, 0x123 as 12 bits each are BC 3A 12.
#[test]
fn the_layout_is_little_endian_without_gaps() {
    assert_eq!(pack(&[0xABC, 0x123], b(12)).unwrap(), [0xBC, 0x3A, 0x12]);
    assert_eq!(pack(&[0xABC], b(12)).unwrap(), [0xBC, 0x0A]);
    assert_eq!(pack(&[0x0403_0201], b(32)).unwrap(), [1, 2, 3, 4]);
    assert_eq!(pack(&[0x0201], b(16)).unwrap(), [1, 2]);
    assert_eq!(pack(&[], b(9)).unwrap(), [] as [u8; 0]);
}

#[test]
fn an_element_that_does_not_fit_is_named() {
    assert_eq!(pack(&[1, 2, 256, 999], b(8)), Err(Fault::Element { index: 2, value: 256, bits: 8 }));
}

#[test]
fn other_lengths_and_dirty_padding_are_refused() {
    let length = |actual| Err(Fault::Length { what: "bytes of a packed vector", expected: 2, actual });
    assert_eq!(unpack(&[0xBC], 1, b(12)), length(1));
    assert_eq!(unpack(&[0xBC, 0x0A, 0], 1, b(12)), length(3));
    assert_eq!(unpack(&[0xBC, 0x1A], 1, b(12)), Err(Fault::Padding));
    assert_eq!(unpack(&[], 0, b(12)), Ok(vec![]));
}

#[test]
fn lengths_do_not_overflow() {
    assert_eq!(packed_len(usize::MAX / 32 * 8, b(32)), usize::MAX / 32 * 32);
    assert_eq!([0, 1, 7, 8, 9].map(|n| packed_len(n, b(9))), [0, 2, 8, 9, 11]);
}

proptest! {
    #[test]
    fn unpacking_undoes_packing(bits in 8u8..=32, lanes in prop::collection::vec(any::<u32>(), 0..70)) {
        let bits = b(bits);
        let lanes: Vec<u32> = lanes.into_iter().map(|lane| lane & bits.mask()).collect();
        let bytes = pack(&lanes, bits).unwrap();
        prop_assert_eq!(bytes.len(), packed_len(lanes.len(), bits));
        prop_assert_eq!(unpack(&bytes, lanes.len(), bits).unwrap(), lanes);
    }

    /// One encoding for each vector: bytes that decode are the bytes that the result encodes to.
    #[test]
    fn decoding_is_strict(bits in 8u8..=32, n in 0usize..12, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(lanes) = unpack(&bytes, n, b(bits)) {
            prop_assert_eq!(pack(&lanes, b(bits)).unwrap(), bytes);
        }
    }
}
