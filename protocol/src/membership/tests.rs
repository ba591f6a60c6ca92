//! Tokens and memberships: what holds, and each thing that does not.

use ring::rand::SystemRandom;

use super::*;
use crate::{
    fault::{Blame, Fault, Misbehaviour},
    machine::Secrets,
    time::Timestamp,
};

struct Counting(u8);

impl Secrets for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

fn identity() -> Identity {
    Identity::from_pkcs8(&Identity::generate(&SystemRandom::new()).unwrap()).unwrap()
}

fn claim() -> Claim {
    Claim { population: "stores".parse().unwrap(), node: "node-1".parse().unwrap(), identity: identity().key(), tls: vec![1, 2, 3] }
}

#[test]
fn a_token_survives_its_printed_form_and_shows_nothing_else() {
    let token = Token::generate(&mut Counting(0));
    let text = token.reveal();
    assert!(text.starts_with("sw1.0102030405060708."), "{}", *text);
    let read: Token = text.parse().unwrap();
    let claim = claim();
    read.check(&claim, &token.prove(&claim)).unwrap();
    let secret = &text[text.len() - 64..];
    assert!(!format!("{token:?}").contains(secret));
    let damaged = text[..text.len() - 1].parse::<Token>().unwrap_err();
    assert!(!damaged.to_string().contains(&secret[..16]), "{damaged}");
    for bad in ["", "sw1", "sw2.a.00", "sw1..00", "sw1.a.b.c", "sw1.a.zz"] {
        assert!(bad.parse::<Token>().is_err(), "{bad}");
    }
}

/// Whatever part of a claim is changed, the proof no longer holds; nor does it under another token.
#[test]
fn a_proof_binds_every_field() {
    let token = Token::generate(&mut Counting(0));
    let claim = claim();
    let proof = token.prove(&claim);
    let changes: [fn(&mut Claim); 4] = [
        |claim| claim.population = "other".parse().unwrap(),
        |claim| claim.node = "node-2".parse().unwrap(),
        |claim| claim.identity = IdentityKey::from_bytes([0; 32]),
        |claim| claim.tls.push(4),
    ];
    for change in changes {
        let mut other = claim.clone();
        change(&mut other);
        assert_eq!(token.check(&other, &proof).unwrap_err().blame(), Blame::Peer);
    }
    assert!(Token::generate(&mut Counting(9)).check(&claim, &proof).is_err());
    assert!(token.check(&claim, &Proof::from_bytes([0; 32])).is_err());
}

/// Holding a token is not enough to claim another's identity.
#[test]
fn a_claim_is_signed_by_the_identity_that_it_names() {
    let owner = identity();
    let claim = Claim { identity: owner.key(), ..claim() };
    let token = Token::generate(&mut Counting(0));
    claim.check_signature(token.id(), &claim.sign(token.id(), &owner)).unwrap();
    assert!(claim.check_signature(token.id(), &claim.sign(token.id(), &identity())).is_err());
    let other = Claim { node: "node-2".parse().unwrap(), ..claim.clone() };
    assert!(other.check_signature(token.id(), &claim.sign(token.id(), &owner)).is_err());
    let elsewhere = Token::generate(&mut Counting(9));
    assert!(claim.check_signature(elsewhere.id(), &claim.sign(token.id(), &owner)).is_err());
}

#[test]
fn a_membership_holds_only_as_it_was_signed() {
    let authority = identity();
    let node = identity();
    let now = Timestamp::from_millis(1_000);
    let membership = Membership {
        population: "stores".parse().unwrap(),
        node: "node-1".parse().unwrap(),
        identity: node.key(),
        labels: [("ring".to_owned(), "lab".to_owned())].into(),
        issued: now,
        expires: Timestamp::from_millis(2_000),
    };
    let population = membership.population.clone();
    let signed = membership.sign(&authority);
    assert_eq!(signed.verify(&authority.key(), &population, now).unwrap().labels["ring"], "lab");
    let json = serde_json::to_string(&signed).unwrap();
    assert_eq!(serde_json::from_str::<SignedMembership>(&json).unwrap(), signed);

    let changes: [fn(&mut Membership); 6] = [
        |m| m.population = "other".parse().unwrap(),
        |m| m.node = "node-2".parse().unwrap(),
        |m| m.identity = IdentityKey::from_bytes([0; 32]),
        |m| drop(m.labels.insert("ring".into(), "global".into())),
        |m| m.issued = Timestamp::from_millis(1),
        |m| m.expires = Timestamp::from_millis(9_000),
    ];
    for change in changes {
        let mut forged = signed.clone();
        change(&mut forged.statement);
        let fault = forged.verify(&authority.key(), &population, now).unwrap_err();
        assert!(matches!(fault, Fault::PeerMisbehaved(Misbehaviour::Signature { .. })), "{fault}");
    }
    assert!(signed.verify(&node.key(), &population, now).is_err());
    assert!(matches!(signed.verify(&authority.key(), &"other".parse().unwrap(), now), Err(Fault::PeerMisbehaved(_))));
    assert!(matches!(signed.verify(&authority.key(), &population, Timestamp::from_millis(2_000)), Err(Fault::Expired(_))));
}

#[test]
fn identities_survive_text() {
    let key = identity().key();
    assert_eq!(key.to_string().parse::<IdentityKey>().unwrap(), key);
    assert!("ed25519:00".parse::<IdentityKey>().is_err());
    assert!("00".repeat(32).parse::<IdentityKey>().is_err());
    assert!(Identity::from_pkcs8(b"no key").is_err());
}
