use proptest::prelude::*;

use super::*;
use crate::{
    Bits,
    secagg::{
        mask::Suite,
        plan::{Profile, Rate},
        shamir::Share,
        tests::every_decoder,
    },
};

const SESSION: Session = Session([0xab; 32]);

fn terms() -> Terms {
    Terms {
        session: SESSION,
        round: 7,
        minimum: 3,
        dropout: Rate::from_ppm(100_000).unwrap(),
        corruption: Rate::from_ppm(50_000).unwrap(),
        profile: Profile::SemiMalicious,
        bits: Bits::new(20).unwrap(),
        length: 1000.try_into().unwrap(),
        suite: Suite::Aes256,
        context: [0xcd; 32],
    }
}

fn advertise(byte: u8) -> Advertise {
    Advertise {
        identity: IdentityKey([byte; 32]),
        terms: [2; 32],
        channel_key: [3; 32],
        mask_key: [4; 32],
        nonce: [5; 32],
        context: vec![6, 7],
        signature: [8; 64],
    }
}

fn share(byte: u8) -> Share {
    Share::from_bytes(&[byte; SHARE_BYTES]).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(kind: u8) -> String {
    format!("{kind:02x}01{}", "ab".repeat(32))
}

/// Notes 7.1: golden bytes of each message, written out field by field.
#[test]
fn messages_have_these_bytes() {
    let one = advertise(1);
    let body = |id: &str| {
        let keys = ["02", "03", "04", "05"].map(|byte| byte.repeat(32)).concat();
        format!("{}{keys}020000000607{}", id.repeat(32), "08".repeat(64))
    };
    assert_eq!(hex(&one.encode(&SESSION)), header(1) + &body("01"));

    let shares =
        ShareKeys { seed_commitment: [1; 32], dealt: vec![Dealt { envelope: [2; ENVELOPE_BYTES], commitments: [[3; 32], [4; 32]] }] };
    let rest = ["01".repeat(32), "01000000".into(), "02".repeat(96), "03".repeat(32), "04".repeat(32)].concat();
    assert_eq!(hex(&shares.encode(&SESSION)), header(2) + &rest);

    assert_eq!(hex(&Alive { signature: [9; 64] }.encode(&SESSION)), header(3) + &"09".repeat(64));

    let unmask = Unmask { shares: vec![Some(share(1)), None] };
    assert_eq!(hex(&unmask.encode(&SESSION)), header(4) + "0200000001" + &"01".repeat(40) + "00");

    let roll = Roll { degree: 1, threshold: 2, entries: vec![(IdentityKey([1; 32]), [2; 32])] };
    let introduction = Introduction { roll, peers: vec![one] };
    let rest = ["010000000200000001000000", &"01".repeat(32), &"02".repeat(32), "01000000", &body("01")].concat();
    assert_eq!(hex(&introduction.encode(&SESSION)), header(11) + &rest);

    let delivery = Delivery { sharers: RankSet::of(9, |rank| rank != 1), envelopes: vec![[5; ENVELOPE_BYTES]] };
    assert_eq!(hex(&delivery.encode(&SESSION)), header(12) + "09000000fd0101000000" + &"05".repeat(96));

    let survivors = Survivors { survivors: RankSet::of(3, |rank| rank != 1) };
    assert_eq!(hex(&survivors.encode(&SESSION)), header(13) + "0300000005");

    let proof = Consistency { signatures: vec![(258, [6; 64])] };
    assert_eq!(hex(&proof.encode(&SESSION)), header(14) + "0100000002010000" + &"06".repeat(64));
}

/// Notes 1.1: what is signed and hashed, written out. Each begins with its own label and names the session.
#[test]
fn what_is_signed_is_pinned() {
    let text = |label: &str| hex(label.as_bytes());
    let (sid, terms) = ("ab".repeat(32), terms());
    let one = advertise(1);
    let keys = ["03", "04", "05"].map(|byte| byte.repeat(32)).concat();
    let signed = [text("fl/secagg/v1/adv"), sid.clone(), "0700000000000000".into(), "02".repeat(32), "01".repeat(32), keys];
    assert_eq!(hex(&one.signed_bytes(&terms)), signed.concat() + "020000000607");

    let survivors = Survivors { survivors: RankSet::of(3, |rank| rank != 1) };
    let signed = [text("fl/secagg/v1/alive"), sid, "11".repeat(32), "0300000005".into()];
    assert_eq!(hex(&survivors.signed_bytes(&SESSION, &[0x11; 32])), signed.concat());

    let sha = |parts: &[&[u8]]| ring::digest::digest(&ring::digest::SHA256, &parts.concat()).as_ref().to_vec();
    assert_eq!(terms.hash().to_vec(), sha(&[b"fl/secagg/v1/params", &terms.encode()]));
    let leaf = &one.encode(&SESSION)[34..];
    assert_eq!(one.digest().to_vec(), sha(&[b"fl/secagg/v1/leaf", leaf]));
    let roll = Roll { degree: 1, threshold: 2, entries: vec![(IdentityKey([1; 32]), [2; 32])] };
    let bytes = [&[1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0][..], &[1; 32], &[2; 32]].concat();
    assert_eq!(roll.digest(&terms).to_vec(), sha(&[b"fl/secagg/v1/roll", &SESSION.0, &terms.hash(), &bytes]));
}

/// Terms: golden bytes, and every field is in the hash.
#[test]
fn the_hash_covers_all_terms() {
    let base = terms();
    let bytes = base.encode();
    let numbers = "0700000000000000 03000000 a0860100 50c30000 02 14 e8030000 01".replace(' ', "");
    assert_eq!(hex(&bytes), "ab".repeat(32) + &numbers + &"cd".repeat(32));
    assert_eq!(Terms::decode(&bytes), Ok(base.clone()));
    let others = [
        Terms { session: Session([1; 32]), ..base.clone() },
        Terms { round: 8, ..base.clone() },
        Terms { minimum: 4, ..base.clone() },
        Terms { dropout: Rate::ZERO, ..base.clone() },
        Terms { corruption: Rate::ZERO, ..base.clone() },
        Terms { profile: Profile::Curious, ..base.clone() },
        Terms { bits: Bits::FULL, ..base.clone() },
        Terms { length: 1001.try_into().unwrap(), ..base.clone() },
        Terms { suite: Suite::ChaCha20, ..base.clone() },
        Terms { context: [0; 32], ..base },
    ];
    for other in others {
        assert_ne!(other.hash(), base.hash(), "{other:?}");
        assert_eq!(Terms::decode(&other.encode()), Ok(other));
    }
    // Rates of 1 and more, no such profile, width, suite; a vector of nothing.
    for (at, values) in [(44, [0xff; 4]), (48, [0xff; 4])] {
        let mut wrong = bytes.clone();
        wrong[at..at + 4].copy_from_slice(&values);
        assert!(matches!(Terms::decode(&wrong), Err(Malformed::Value { .. })), "byte {at}");
    }
    for (at, value) in [(52, 0), (52, 3), (53, 7), (53, 33), (58, 0), (58, 3)] {
        let mut wrong = bytes.clone();
        wrong[at] = value;
        assert!(matches!(Terms::decode(&wrong), Err(Malformed::Value { .. })), "byte {at}");
    }
    let mut wrong = bytes.clone();
    wrong[54..58].fill(0);
    assert_eq!(Terms::decode(&wrong), Err(Malformed::Value { what: "the length of a vector" }));
    assert!(Terms::decode(&bytes[..bytes.len() - 1]).is_err());
    assert!(Terms::decode(&[bytes, vec![0]].concat()).is_err());
}

fn check<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    let bytes = message.encode(&SESSION);
    assert_eq!(M::decode(&SESSION, &bytes).as_ref(), Ok(message));
    assert_eq!(peek(&bytes), Ok((M::KIND, SESSION)));
    assert_ne!(name(M::KIND), name(0));
    assert_eq!(M::decode(&Session([1; 32]), &bytes), Err(Fault::WrongSession));
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(M::decode(&SESSION, &longer), Err(Malformed::Trailing { bytes: 1 }.into()));
    for cut in 0..bytes.len() {
        assert!(M::decode(&SESSION, &bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut other = bytes;
    other[0] ^= 0x40;
    assert_eq!(M::decode(&SESSION, &other), Err(Malformed::Kind { expected: M::NAME }.into()));
}

/// Notes 7.12: there and back; nothing behind the end; no prefix is a message; no other session, kind or version.
#[test]
fn messages_come_back_and_nothing_else_does() {
    check(&advertise(1));
    check(&ShareKeys {
        seed_commitment: [1; 32],
        dealt: vec![Dealt { envelope: [2; ENVELOPE_BYTES], commitments: [[3; 32], [4; 32]] }; 2],
    });
    check(&Alive { signature: [9; 64] });
    check(&Unmask { shares: vec![None, Some(share(1)), None] });
    let roll = Roll { degree: 2, threshold: 2, entries: vec![(IdentityKey([1; 32]), [2; 32]); 3] };
    check(&Introduction { roll, peers: vec![advertise(1), advertise(2)] });
    check(&Delivery { sharers: RankSet::of(9, |rank| rank != 1), envelopes: vec![[5; ENVELOPE_BYTES]; 2] });
    check(&Survivors { survivors: RankSet::of(16, |rank| rank > 3) });
    check(&Consistency { signatures: vec![(1, [6; 64]), (2, [7; 64])] });
}

/// A count reserves no memory that is not there, and is bounded.
#[test]
fn counts_are_bounded() {
    let mut bytes = Unmask { shares: Vec::new() }.encode(&SESSION);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = Malformed::TooLong { count: u32::MAX, most: MAX_PARTICIPANTS };
    assert_eq!(Unmask::decode(&SESSION, &bytes), Err(refused.into()));
    bytes[at..].copy_from_slice(&MAX_PARTICIPANTS.to_le_bytes());
    assert_eq!(Unmask::decode(&SESSION, &bytes), Err(Malformed::Short.into()));
    let fits = Advertise { context: vec![0; MAX_CONTEXT as usize], ..advertise(1) };
    assert_eq!(Advertise::decode(&SESSION, &fits.encode(&SESSION)), Ok(fits));
    let big = Advertise { context: vec![0; MAX_CONTEXT as usize + 1], ..advertise(1) };
    let refused = Malformed::TooLong { count: MAX_CONTEXT + 1, most: MAX_CONTEXT };
    assert_eq!(Advertise::decode(&SESSION, &big.encode(&SESSION)), Err(refused.into()));
    let set = [Survivors { survivors: RankSet::empty(0) }.encode(&SESSION)[..34].to_vec(), u32::MAX.to_le_bytes().to_vec()].concat();
    assert!(matches!(Survivors::decode(&SESSION, &set), Err(Fault::Malformed(Malformed::TooLong { .. }))));
}

/// Shares are written where they stay: a message that grew would leave copies of them behind that nobody wipes.
#[test]
fn shares_are_written_once() {
    for count in [1, 2, 9, 100] {
        let bytes = Unmask { shares: vec![Some(share(1)); count] }.encode(&SESSION);
        assert_eq!((bytes.len(), bytes.capacity()), (34 + 4 + 41 * count, bytes.len()), "{count} shares");
    }
}

/// One set, one encoding.
#[test]
fn dirty_padding_of_a_set_is_refused() {
    let mut bytes = Survivors { survivors: RankSet::of(3, |_| true) }.encode(&SESSION);
    *bytes.last_mut().unwrap() |= 0x08;
    assert_eq!(Survivors::decode(&SESSION, &bytes), Err(Malformed::Value { what: "the padding of a set" }.into()));
    let mut bytes = Unmask { shares: vec![None] }.encode(&SESSION);
    *bytes.last_mut().unwrap() = 2;
    assert_eq!(Unmask::decode(&SESSION, &bytes), Err(Malformed::Value { what: "the mark of a share" }.into()));
}

proptest! {
    /// Notes 7.12: whatever comes is read without a panic, and if it is read, it is canonical.
    #[test]
    fn decoders_never_panic(kind in prop_oneof![1u8..5, 11u8..15], tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        every_decoder(&SESSION, &tail);
        every_decoder(&SESSION, &[&[kind, 1][..], &SESSION.0, &tail].concat());
    }
    /// As above, from small counts and bytes that get further.
    #[test]
    fn decoders_are_canonical(kind in prop_oneof![1u8..5, 11u8..15], tail in proptest::collection::vec(0u8..3, 0..700)) {
        every_decoder(&SESSION, &[&[kind, 1][..], &SESSION.0, &tail].concat());
    }
}

/// Enough to tell one from another in a log.
#[test]
fn sessions_and_identities_print_their_first_bytes() {
    let bytes = std::array::from_fn(|i| i as u8 + 0xa9);
    assert_eq!(format!("{:?} {:?}", Session(bytes), IdentityKey(bytes)), "a9aaabacadae a9aaabacadae");
}
