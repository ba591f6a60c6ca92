//! Keys between two participants, and the envelopes that their shares travel in.
//!
//! X25519 (RFC 7748) with two key pairs each, one for envelopes and one for masks: only the latter may ever be rebuilt from
//! shares, so a rebuilt key opens no envelope. HKDF-SHA256 (RFC 5869) binds every derived key to its use, the session and
//! the two ranks; AES-256-GCM seals.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{
    message::ENVELOPE_BYTES,
    shamir::{SHARE_BYTES, Share},
    terms::{Random, Session, sha256},
};

/// 32 bytes that wipe themselves.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// 32 random bytes.
pub(super) fn draw(random: &mut dyn Random) -> Secret {
    let mut secret = Secret::default();
    random.fill(secret.as_mut_slice());
    secret
}

/// The public half of an X25519 secret.
pub(super) fn public(secret: &Secret) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(**secret)).to_bytes()
}

/// The agreed secret; nothing if `theirs` is a point of low order, with which everybody agrees on the same.
pub(super) fn agree(ours: &Secret, theirs: &[u8; 32]) -> Option<Secret> {
    let agreed = StaticSecret::from(**ours).diffie_hellman(&PublicKey::from(*theirs));
    agreed.was_contributory().then(|| Zeroizing::new(agreed.to_bytes()))
}

/// Whether a key is of use: the low-order points are those that every clamped scalar sends to zero.
pub(super) fn is_contributory(key: &[u8; 32]) -> bool {
    agree(&Zeroizing::new([1; 32]), key).is_some()
}

/// HKDF-SHA256 without salt, 32 bytes.
pub(super) fn expand(secret: &[u8], info: &[&[u8]]) -> Secret {
    let mut out = Secret::default();
    Salt::new(HKDF_SHA256, &[])
        .extract(secret)
        .expand(info, HKDF_SHA256)
        .and_then(|okm| okm.fill(out.as_mut_slice()))
        .expect("32 bytes is a length of HKDF-SHA256");
    out
}

/// s_ij: the seed of the mask that two participants share; the same from both sides.
pub(super) fn pair_seed(agreed: &Secret, session: &Session, a: u32, b: u32) -> Secret {
    expand(agreed.as_slice(), &[b"mask", &session.0, &a.min(b).to_le_bytes(), &a.max(b).to_le_bytes()])
}

/// The seed of a participant's own mask, from its b_i: the commitment and the mask use b_i in different ways.
pub(super) fn own_seed(secret: &Secret, session: &Session, rank: u32) -> Secret {
    expand(secret.as_slice(), &[b"self", &session.0, &rank.to_le_bytes()])
}

/// H(b_i): b_i is random, so nothing is learned from it.
pub(super) fn commit_seed(secret: &Secret, session: &Session, rank: u32) -> [u8; 32] {
    sha256(&[b"fl/secagg/v1/seed", &session.0, &rank.to_le_bytes(), secret.as_slice()])
}

/// Which of a participant's two secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Its mask key: wanted if it left after its masks were agreed.
    Key,
    /// b_i: wanted if its vector is in the sum.
    Seed,
}

/// What a dealer commits to for one share, so that a holder who returns another one is named.
pub(super) fn commit_share(share: &Share, which: Which, session: &Session, owner: u32, holder: u32) -> [u8; 32] {
    let label: &[u8] = match which {
        Which::Key => b"fl/secagg/v1/share/key",
        Which::Seed => b"fl/secagg/v1/share/seed",
    };
    sha256(&[label, &session.0, &owner.to_le_bytes(), &holder.to_le_bytes(), share.to_bytes().as_slice()])
}

/// Where an envelope belongs: bound into its key and authenticated with it.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) session: &'a Session,
    /// Digest of the roll.
    pub(super) roll: &'a [u8; 32],
    pub(super) from: u32,
    pub(super) to: u32,
}

impl Route<'_> {
    /// The key of one direction. It seals one envelope ever, so the nonce is fixed.
    pub(super) fn key(&self, agreed: &Secret) -> Secret {
        expand(agreed.as_slice(), &[b"channel", &self.session.0, &self.from.to_le_bytes(), &self.to.to_le_bytes(), self.roll])
    }
    fn aad(&self) -> Vec<u8> {
        [&self.session.0, &b"share"[..], &self.from.to_le_bytes(), &self.to.to_le_bytes(), self.roll].concat()
    }
}

fn cipher(key: &Secret) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("AES-256 takes 32 bytes"))
}

/// Seals a share of the mask key and one of the own-mask seed. `key` is [`Route::key`], used once.
pub(super) fn seal(key: &Secret, route: Route<'_>, of_key: &Share, of_seed: &Share) -> [u8; ENVELOPE_BYTES] {
    let mut envelope = Zeroizing::new([0; ENVELOPE_BYTES]);
    envelope[..SHARE_BYTES].copy_from_slice(of_key.to_bytes().as_slice());
    envelope[SHARE_BYTES..2 * SHARE_BYTES].copy_from_slice(of_seed.to_bytes().as_slice());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = cipher(key)
        .seal_in_place_separate_tag(nonce, Aad::from(route.aad()), &mut envelope[..2 * SHARE_BYTES])
        .expect("an envelope is far below the cipher's limit");
    envelope[2 * SHARE_BYTES..].copy_from_slice(tag.as_ref());
    *envelope
}

/// The two shares; nothing if the envelope is not what was sealed for this route.
pub(super) fn open(key: &Secret, route: Route<'_>, envelope: &[u8; ENVELOPE_BYTES]) -> Option<(Share, Share)> {
    let mut bytes = Zeroizing::new(*envelope);
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let plain = cipher(key).open_in_place(nonce, Aad::from(route.aad()), bytes.as_mut_slice()).ok()?;
    let (of_key, of_seed) = plain.split_at(SHARE_BYTES);
    Some((Share::from_bytes(of_key.try_into().ok()?).ok()?, Share::from_bytes(of_seed.try_into().ok()?).ok()?))
}

#[cfg(test)]
#[path = "tests/channel.rs"]
mod tests;
