//! PEM (RFC 7468): one labelled base64 block, lines of 64.

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::fault::{Fault, Misuse};

/// More than any key or certificate that we read.
const MAX_TEXT: usize = 64 * 1024;

/// `der` as PEM under `label`, ending in a newline.
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The DER inside the first block of `text` labelled `label`. Text around the block is allowed, as RFC 7468 has it.
pub fn decode(label: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let fault = |why: &str| Fault::from(Misuse::Setting { key: format!("PEM {label}"), why: why.to_owned() });
    if text.len() > MAX_TEXT {
        return Err(fault("more than 64 KiB"));
    }
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----")).ok_or_else(|| fault("the BEGIN line is missing"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----")).ok_or_else(|| fault("the END line is missing"))?;
    let body: Zeroizing<String> = Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    STANDARD.decode(body.as_bytes()).map(Zeroizing::new).map_err(|_| fault("the lines between are not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let der: Vec<u8> = (0..=255).collect();
        let text = encode("PUBLIC KEY", &der);
        assert!(text.lines().all(|line| line.len() <= 64));
        assert_eq!(*decode("PUBLIC KEY", &text).unwrap(), der);
        assert_eq!(*decode("PUBLIC KEY", &format!("for people\n{}", text.replace('\n', "\r\n"))).unwrap(), der);
    }

    #[test]
    fn broken_pem_is_refused() {
        let text = encode("PUBLIC KEY", b"abc");
        for bad in ["", "-----BEGIN PUBLIC KEY-----\nYWJj\n", &text.replace("YWJj", "YW*j"), &text.replace("PUBLIC", "PRIVATE")] {
            assert!(decode("PUBLIC KEY", bad).is_err(), "{bad}");
        }
    }
}
