use proptest::prelude::*;

use super::*;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..P, Just(0), Just(1), Just(P - 1), Just(P - 2), Just(1 << 60), 0..1000u64]
}

fn element(number: u64) -> Element {
    Element::new(number).unwrap()
}

proptest! {
    /// Against the remainder of 128-bit integers.
    #[test]
    fn arithmetic_is_modulo_p(a in number(), b in number()) {
        let (x, y, p) = (u128::from(a), u128::from(b), u128::from(P));
        prop_assert_eq!(u128::from(element(a).plus(element(b)).get()), (x + y) % p);
        prop_assert_eq!(u128::from(element(a).minus(element(b)).get()), (x + p - y) % p);
        prop_assert_eq!(u128::from(element(a).times(element(b)).get()), x * y % p);
    }
    #[test]
    fn an_inverse_is_one(a in 1..P) {
        prop_assert_eq!(element(a).times(element(a).inverse()).get(), 1);
    }
}

#[test]
fn only_numbers_below_p_are_elements() {
    assert_eq!(P, 2_305_843_009_213_693_951);
    assert!(Element::new(P).is_none() && Element::new(u64::MAX).is_none());
    assert_eq!(Element::ZERO.inverse().get(), 0);
    assert_eq!(element(P - 1).inverse().get(), P - 1);
}

/// A draw of p itself is repeated, the top three bits are dropped.
#[test]
fn draws_are_below_p() {
    let mut words = [P, u64::MAX, 5 | 1 << 63].into_iter();
    let mut random = |bytes: &mut [u8]| bytes.copy_from_slice(&words.next().unwrap().to_le_bytes());
    assert_eq!(Element::random(&mut random).get(), 5);
}
