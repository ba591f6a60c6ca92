//! The trust file.

use super::*;
use crate::release::sign::tests::key;

fn file() -> TrustFile {
    TrustFile {
        population: "stores".parse().unwrap(),
        authority: IdentityKey::from_bytes([7; 32]),
        coordinator_ca: pem::encode("CERTIFICATE", b"der").to_string(),
        release: ReleaseTrust { keys: vec![key().verifying_key(), key().verifying_key()], threshold: 2 },
    }
}

#[test]
fn it_survives_toml() {
    let file = file();
    assert_eq!(TrustFile::parse(&file.to_toml().unwrap()).unwrap(), file);
}

#[test]
fn what_cannot_be_trusted_is_refused() {
    let good = file().to_toml().unwrap();
    let cases = [
        (good.replace("threshold = 2", "threshold = 3"), "release.threshold"),
        (good.replace("threshold = 2", "threshold = 0"), "release.threshold"),
        (good.replace("CERTIFICATE", "NOTHING"), "coordinator_ca"),
        (good.replace("ed25519:", "rsa:"), "ed25519"),
        (format!("colour = \"green\"\n{good}"), "colour"),
        (String::new(), "missing field"),
    ];
    for (text, why) in cases {
        assert_ne!(text, good);
        let message = TrustFile::parse(&text).unwrap_err().to_string();
        assert!(message.contains(why), "{why}: {message}");
    }
}
