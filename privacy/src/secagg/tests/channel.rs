use super::*;
use crate::secagg::terms::IdentityKey;

fn hex<const N: usize>(text: &str) -> [u8; N] {
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

/// RFC 7748 §6.1: Alice and Bob.
#[test]
fn x25519_agrees_with_the_rfc() {
    let alice = Zeroizing::new(hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    let bob = Zeroizing::new(hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    let alice_public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let bob_public = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!((public(&alice), public(&bob)), (alice_public, bob_public));
    assert_eq!(*agree(&alice, &bob_public).unwrap(), shared);
    assert_eq!(*agree(&bob, &alice_public).unwrap(), shared);
}

/// RFC 5869, test case 3: no salt, no info.
#[test]
fn hkdf_agrees_with_the_rfc() {
    let okm = expand(&[0x0b; 22], &[]);
    assert_eq!(*okm, hex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"));
}

/// RFC 8032 §7.1, test 2, and the same with one bit changed.
#[test]
fn ed25519_agrees_with_the_rfc() {
    let key = IdentityKey(hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"));
    let mut signature = hex::<64>(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    );
    assert!(key.verifies(&[0x72], &signature));
    assert!(!key.verifies(&[0x73], &signature));
    signature[0] ^= 1;
    assert!(!key.verifies(&[0x72], &signature));
}

/// All points of small order on the curve and its twist, as encodings: each is refused, and so are the non-canonical ones.
#[test]
fn low_order_points_are_refused() {
    for point in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        assert!(!is_contributory(&hex(point)), "{point}");
        assert!(agree(&Zeroizing::new([0x55; 32]), &hex(point)).is_none(), "{point}");
    }
    assert!(is_contributory(&public(&Zeroizing::new([3; 32]))));
}

fn shares() -> (Share, Share) {
    let share = |byte| Share::from_bytes(&[byte; SHARE_BYTES]).unwrap();
    (share(1), share(2))
}

/// Notes 7.5: an envelope opens with its key, on its route, whole; nowhere else.
#[test]
fn an_envelope_opens_on_its_route_only() {
    let (sessions, rolls) = ([Session([1; 32]), Session([2; 32])], [[3; 32], [4; 32]]);
    let agreed = Zeroizing::new([5; 32]);
    let route = Route { session: &sessions[0], roll: &rolls[0], from: 7, to: 9 };
    let key = route.key(&agreed);
    let (of_key, of_seed) = shares();
    let envelope = seal(&key, route, &of_key, &of_seed);
    assert_eq!(open(&key, route, &envelope), Some((of_key, of_seed)));

    let others = [
        Route { session: &sessions[1], ..route },
        Route { roll: &rolls[1], ..route },
        Route { from: 8, ..route },
        Route { to: 8, ..route },
        Route { from: 9, to: 7, ..route },
    ];
    for other in others {
        assert_ne!(*other.key(&agreed), *key, "each route has its key");
        assert!(open(&key, other, &envelope).is_none(), "the route is authenticated");
        assert!(open(&other.key(&agreed), route, &envelope).is_none());
    }
    for byte in 0..ENVELOPE_BYTES {
        let mut damaged = envelope;
        damaged[byte] ^= 0x10;
        assert!(open(&key, route, &damaged).is_none(), "byte {byte}");
    }
}

/// Pinned: an envelope, byte for byte. Recomputed with Python's `cryptography` 48: HKDF-SHA256 of 32 bytes of 5 with the info
/// "channel" ‖ session ‖ le32(7) ‖ le32(9) ‖ roll is the key; AES-256-GCM under it, with a nonce of zeros and the additional data
/// session ‖ "share" ‖ le32(7) ‖ le32(9) ‖ roll, of 40 bytes of 1 and 40 bytes of 2.
#[test]
fn an_envelope_is_pinned() {
    let route = Route { session: &Session([1; 32]), roll: &[3; 32], from: 7, to: 9 };
    let (of_key, of_seed) = shares();
    let envelope = seal(&route.key(&Zeroizing::new([5; 32])), route, &of_key, &of_seed);
    assert_eq!(envelope, hex(ENVELOPE));
    assert_eq!(open(&hex(CHANNEL).into(), route, &hex(ENVELOPE)), Some((of_key, of_seed)));
}
const ENVELOPE: &str = "291a4bf76552a1720ea3f15b1668254227233b534dbe301d1beb3688fee36137cc54f1c0aa16e44d5a606d4759ed2bc8\
    82886ee1768721fd64bfe37061161fae9e753b3dcae8665b9753bc5a0c7df030fcfc5f800bebd8be1d816feee5a8f009";

/// Pinned: what is derived under which label. Recomputed with Python's hmac and hashlib.
#[test]
fn labels_are_pinned() {
    let (session, agreed) = (Session([1; 32]), Zeroizing::new([5; 32]));
    assert_eq!(*pair_seed(&agreed, &session, 7, 9), hex(PAIR));
    assert_eq!(pair_seed(&agreed, &session, 7, 9), pair_seed(&agreed, &session, 9, 7));
    assert_ne!(pair_seed(&agreed, &session, 7, 9), pair_seed(&agreed, &session, 7, 8));
    assert_eq!(*own_seed(&agreed, &session, 7), hex(OWN));
    assert_eq!(commit_seed(&agreed, &session, 7), hex(SEED));
    let route = Route { session: &session, roll: &[3; 32], from: 7, to: 9 };
    assert_eq!(*route.key(&agreed), hex(CHANNEL));
    assert_eq!(route.aad(), [&[1; 32][..], b"share", &[7, 0, 0, 0, 9, 0, 0, 0], &[3; 32]].concat());
    let (of_key, _) = shares();
    assert_eq!(commit_share(&of_key, Which::Key, &session, 7, 9), hex(SHARE_KEY));
    assert_eq!(commit_share(&of_key, Which::Seed, &session, 7, 9), hex(SHARE_SEED));
}
const PAIR: &str = "ca1df7031d3b87140a1cdc2353cd25e31837b526c562d0a1d9086f6ea85a9b9d";
const OWN: &str = "2fbd8eb10490890bd749d4b979d52b6dbee5d84b8264487feb5edd504a8b5007";
const SEED: &str = "1f2b19699035ecf0b72ca72907784a449453f8ba97f8340798964d0e5db6964f";
const CHANNEL: &str = "3f0ced30a2a50cfe8467eee1af4e6a78a84a1388ca9707b87109c9f83ee03f47";
const SHARE_KEY: &str = "d38856c97a12c0710ccd55600cd4688e1486a4d3673fcb8ece5718543f1edcad";
const SHARE_SEED: &str = "045bfcf150194b7e22e32e71f78fb0708d60678a1137ee85ebe36596ec59c962";
