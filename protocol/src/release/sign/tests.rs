//! Signatures, against the openssl that Debian ships.

use std::{fs, path::PathBuf, process::Command};

use ring::rand::SystemRandom;

use super::*;

pub(crate) fn key() -> SigningKey {
    let random = SystemRandom::new();
    SigningKey::from_pkcs8(&SigningKey::generate(&random).unwrap(), &random).unwrap()
}

/// A folder of its own, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("sapwood-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).unwrap();
    }
    fn openssl(&self, arguments: &str) -> bool {
        Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output().expect("openssl is installed").status.success()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// R68, R103: openssl accepts bundle and manifest, and refuses each after one flipped byte of it, of its signature, or of the key.
#[test]
fn openssl_accepts_and_refuses() {
    let folder = Folder::new("sign");
    let (key, other) = (key(), key());
    folder.put("pub.pem", key.verifying_key().to_pem().as_bytes());
    folder.put("other.pem", other.verifying_key().to_pem().as_bytes());
    let bundle = crate::release::bundle::write(&crate::release::bundle::tests::parts()).unwrap();
    let manifest = crate::release::manifest::tests::sample(&crate::release::bundle::tests::parts(), bundle.digest).to_bytes().unwrap();
    for (name, message) in [("model.tar.gz", bundle.bytes), ("manifest.json", manifest)] {
        let signature = key.sign(&message, &SystemRandom::new()).unwrap();
        let verify = |key: &str| folder.openssl(&format!("dgst -sha256 -verify {key} -signature {name}.sig {name}"));
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        folder.put(name, &message);
        folder.put(&format!("{name}.sig"), signature.as_der());
        assert!(verify("pub.pem"), "{name}");
        assert!(!verify("other.pem"), "{name}");
        folder.put(name, &flipped(&message, message.len() / 2));
        assert!(!verify("pub.pem"), "{name}");
        folder.put(name, &message);
        folder.put(&format!("{name}.sig"), &flipped(signature.as_der(), 40));
        assert!(!verify("pub.pem"), "{name}");
    }
}

#[test]
fn a_signature_by_openssl_is_ours_too() {
    let folder = Folder::new("verify");
    folder.put("message", b"signed elsewhere");
    assert!(folder.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"));
    assert!(folder.openssl("pkey -in key.pem -pubout -out pub.pem"));
    assert!(folder.openssl("dgst -sha256 -sign key.pem -out message.sig message"));
    let text = |name: &str| fs::read_to_string(folder.0.join(name)).unwrap();
    let public = VerifyingKey::from_pem(&text("pub.pem")).unwrap();
    let signature = Signature::from_der(&fs::read(folder.0.join("message.sig")).unwrap()).unwrap();
    assert!(public.verify(b"signed elsewhere", &signature));
    assert!(!public.verify(b"signed elsewherf", &signature));
    assert_eq!(public.to_pem(), text("pub.pem"));
    // And its private key signs here.
    let random = SystemRandom::new();
    let private = SigningKey::from_pem(&text("key.pem"), &random).unwrap();
    assert_eq!(private.verifying_key(), public);
    assert!(public.verify(b"m", &private.sign(b"m", &random).unwrap()));
}

#[test]
fn keys_and_signatures_survive_text() {
    let random = SystemRandom::new();
    let pkcs8 = SigningKey::generate(&random).unwrap();
    let key = SigningKey::from_pem(&SigningKey::to_pem(&pkcs8), &random).unwrap();
    assert_eq!(VerifyingKey::from_pem(&key.verifying_key().to_pem()).unwrap(), key.verifying_key());
    let signature = key.sign(b"m", &random).unwrap();
    let json = serde_json::to_string(&signature).unwrap();
    assert_eq!(serde_json::from_str::<Signature>(&json).unwrap(), signature);
    assert!(!format!("{key:?}").contains("pair"), "{key:?}");
    for bad in ["\"\"", "\"*\"", &format!("\"{}\"", "A".repeat(400))] {
        assert!(serde_json::from_str::<Signature>(bad).is_err(), "{bad}");
    }
    assert!(SigningKey::from_pkcs8(b"no key", &random).is_err());
    assert!(VerifyingKey::from_pem(&pem::encode("PUBLIC KEY", &[0; 91])).is_err());
    assert!(VerifyingKey::from_point(&[4; 64]).is_err() && VerifyingKey::from_point(&[2; 65]).is_err());
}
