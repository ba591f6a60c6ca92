//! A whole release, and one change at a time.

use ring::rand::SystemRandom;

use super::*;
use crate::{
    fault::Misbehaviour,
    release::{SigningKey, bundle, manifest::tests::sample, sign::tests::key},
};

struct Release {
    bundle: Vec<u8>,
    manifest: Vec<u8>,
    signatures: Signatures,
    trust: ReleaseTrust,
}

fn release(signers: &[SigningKey], threshold: usize, edit: impl FnOnce(&mut Manifest)) -> Release {
    let parts = bundle::tests::parts();
    let packed = bundle::write(&parts).unwrap();
    let mut manifest = sample(&parts, packed.digest);
    edit(&mut manifest);
    let manifest = manifest.to_bytes().unwrap();
    let sign = |bytes: &[u8]| signers.iter().map(|key| key.sign(bytes, &SystemRandom::new()).unwrap()).collect();
    let signatures = Signatures { bundle: sign(&packed.bytes), manifest: sign(&manifest) };
    let trust = ReleaseTrust { keys: signers.iter().map(SigningKey::verifying_key).collect(), threshold };
    Release { bundle: packed.bytes, manifest, signatures, trust }
}

fn verify(r: &Release) -> Result<Verified, ReleaseFault> {
    verify_release(&r.bundle, &r.manifest, &r.signatures, &r.trust, &Limits::default()).map_err(|fault| match fault {
        Fault::PeerMisbehaved(Misbehaviour::Release(fault)) => fault,
        other => panic!("{other}"),
    })
}

#[test]
fn a_whole_release_is_verified() {
    let r = release(&[key()], 1, |_| ());
    let verified = verify(&r).unwrap();
    assert_eq!(verified.digest, Digest::of(&r.bundle));
    assert_eq!(verified.parts, bundle::tests::parts());
    assert!(check_signatures("bundle", &r.bundle, &r.signatures.bundle, &r.trust).iter().all(|check| check.valid));
}

/// R101: unsigned, by a stranger, changed anywhere: each is refused under its own name.
#[test]
fn each_change_has_its_own_refusal() {
    let good = || release(&[key()], 1, |_| ());
    let mut r = good();
    r.manifest[100] ^= 1;
    assert!(matches!(verify(&r), Err(ReleaseFault::Signature { what: "manifest", valid: 0, threshold: 1 })));
    let mut r = good();
    let middle = r.bundle.len() / 2;
    r.bundle[middle] ^= 1;
    assert!(matches!(verify(&r), Err(ReleaseFault::Signature { what: "bundle", .. })));
    let mut r = good();
    r.signatures.bundle.clear();
    assert!(matches!(verify(&r), Err(ReleaseFault::Signature { what: "bundle", .. })));
    let mut r = good();
    std::mem::swap(&mut r.signatures.bundle, &mut r.signatures.manifest);
    assert!(verify(&r).is_err());
    let mut r = good();
    r.trust.keys = vec![key().verifying_key()];
    assert!(matches!(verify(&r), Err(ReleaseFault::Signature { what: "manifest", .. })));

    let wrong = release(&[key()], 1, |manifest| manifest.checksum = Digest::of(b"another bundle"));
    assert!(matches!(verify(&wrong), Err(ReleaseFault::Checksum { .. })));
    let other = |manifest: &mut Manifest| manifest.components.get_mut("card.md").unwrap().digest = Digest::of(b"?");
    assert!(matches!(verify(&release(&[key()], 1, other)), Err(ReleaseFault::Component { name, .. }) if name == "card.md"));
    let less = |manifest: &mut Manifest| {
        manifest.components.remove("card.md");
    };
    assert!(matches!(verify(&release(&[key()], 1, less)), Err(ReleaseFault::Component { name, .. }) if name == "card.md"));
    let more = |manifest: &mut Manifest| {
        manifest.components.insert("schema.json".into(), Component { digest: Digest::of(b""), bytes: 0 });
    };
    assert!(matches!(verify(&release(&[key()], 1, more)), Err(ReleaseFault::Component { name, .. }) if name == "schema.json"));
}

/// The threshold counts keys, not signatures.
#[test]
fn a_threshold_counts_distinct_keys() {
    let mut r = release(&[key(), key()], 2, |_| ());
    assert!(verify(&r).is_ok());
    r.signatures.bundle[1] = r.signatures.bundle[0].clone();
    assert!(matches!(verify(&r), Err(ReleaseFault::Signature { what: "bundle", valid: 1, threshold: 2 })));
    for (threshold, twice) in [(0, false), (3, false), (2, true)] {
        let mut r = release(&[key(), key()], threshold, |_| ());
        if twice {
            r.trust.keys[1] = r.trust.keys[0].clone();
        }
        assert!(r.trust.check().is_err());
        assert!(verify_release(&r.bundle, &r.manifest, &r.signatures, &r.trust, &Limits::default()).is_err());
    }
}

/// An order is not signed: what it says about a release must be what the manifest says.
#[test]
fn an_order_must_agree_with_its_manifest() {
    let r = release(&[key()], 1, |_| ());
    let manifest = verify(&r).unwrap().manifest;
    let order = ReleaseRef {
        release: manifest.release().unwrap(),
        bundle: manifest.checksum,
        bundle_bytes: r.bundle.len() as u64,
        unpacked_bytes: manifest.unpacked_bytes(),
        manifest: Digest::of(&r.manifest),
        manifest_bytes: r.manifest.len() as u64,
        signatures: r.signatures.clone(),
        class: manifest.target_devices[0].clone(),
        min_runtime: manifest.runtime.min_onnxruntime,
    };
    order.check(&manifest).unwrap();
    let lies: [fn(&mut ReleaseRef); 5] = [
        |order| order.release = "digits-2.0".parse().unwrap(),
        |order| order.bundle = Digest::of(b"?"),
        |order| order.class = "aarch64".parse().unwrap(),
        |order| order.min_runtime = "1.0.0".parse().unwrap(),
        |order| order.unpacked_bytes += 1,
    ];
    for lie in lies {
        let mut order = order.clone();
        lie(&mut order);
        assert!(order.check(&manifest).unwrap_err().to_string().contains("the order says otherwise"));
    }
}
