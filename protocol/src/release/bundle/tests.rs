//! Bundles: reproducible, readable by GNU tar, and closed to what an honest writer never writes.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;

pub(crate) fn parts() -> Parts {
    let mut parts = Parts::new();
    let array = Array::new(vec![1, 2], vec![1.0, 2.0]).unwrap();
    for (name, bytes) in [
        ("model.onnx", vec![7; 3000]),
        ("card.md", b"# Card\n".to_vec()),
        (golden::INPUTS, array.to_npy()),
        (golden::OUTPUTS, array.to_npy()),
    ] {
        parts.insert(name, bytes).unwrap();
    }
    parts
}

/// A raw tar entry, as hostile as it is asked to be.
fn entry(name: &str, kind: EntryType, bytes: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut block = header.as_bytes().to_vec();
    block.extend_from_slice(bytes);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn packed(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = entries.concat();
    tar.extend([0; 1024]);
    squeeze(&tar)
}

fn squeeze(tar: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

fn model() -> Vec<u8> {
    entry("model.onnx", EntryType::Regular, b"model")
}

fn refusal(archive: &[u8]) -> String {
    read(archive, &Limits::default()).unwrap_err().to_string()
}

/// R53, R74: the same parts give the same bytes, in whatever order they were put in; the digest is pinned.
#[test]
fn bundles_are_reproducible() {
    let one = write(&parts()).unwrap();
    let mut other = Parts::new();
    for (name, bytes) in parts().0.into_iter().rev() {
        other.insert(&name, bytes).unwrap();
    }
    assert_eq!(write(&other).unwrap(), one);
    assert_eq!(one.bytes[..10], GZIP_HEADER);
    assert_eq!(read(one.bytes.as_slice(), &Limits::default()).unwrap(), parts());
    assert_eq!(parts().golden().unwrap().unwrap().0[0].shape(), [1, 2]);
    assert_eq!(one.digest.to_string(), PINNED, "the bundle's bytes have changed: old releases can no longer be rebuilt");
}
const PINNED: &str = "sha256:56f7064a73444668642a76a559d5477196fb62dd30f47c13aa5429acc3d54103";

/// R107: GNU tar unpacks it, without a word.
#[test]
fn gnu_tar_lists_it() {
    let bundle = write(&parts()).unwrap();
    let mut tar =
        Command::new("tar").args(["-tzvf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tar.stdin.take().unwrap().write_all(&bundle.bytes).unwrap();
    let output = tar.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8(output.stdout).unwrap();
    assert!(listing.contains("-rw-r--r-- 0/0") && listing.contains("golden/inputs.npy"), "{listing}");
}

/// R107: the reader names what it refuses.
#[test]
fn hostile_entries_are_refused_by_name() {
    use EntryType as Kind;
    let file = |name: &str| entry(name, Kind::Regular, b"x");
    let cases = [
        (file("/etc/passwd"), "absolute"),
        (file("../model.onnx"), "\"..\""),
        (file("golden/../../x.npy"), "\"..\""),
        (file("golden/..\\x.npy"), "absolute"),
        (file("c:x"), "absolute"),
        (file("./model.onnx"), "\"..\""),
        (file("golden//x.npy"), "nothing"),
        (file("run.sh"), "not a part"),
        (file("golden/run.sh"), "not a part"),
        (file("golden/deep/x.npy"), "not a part"),
        (file("golden/.npy"), "not a part"),
        (file("Model.onnx"), "not a part"),
        (entry("card.md", Kind::Symlink, b""), "symbolic link"),
        (entry("card.md", Kind::Link, b""), "hard link"),
        (entry("card.md", Kind::Char, b""), "device"),
        (entry("card.md", Kind::Block, b""), "device"),
        (entry("card.md", Kind::Fifo, b""), "pipe"),
        (entry("golden/", Kind::Directory, b""), "folder"),
        (entry("card.md", Kind::XHeader, b"12 path=a/b\n"), "extended header"),
        (entry("card.md", Kind::GNULongName, b"/etc/passwd"), "extended header"),
        (entry("card.md", Kind::GNUSparse, b""), "sparse"),
        (entry("card.md", Kind::new(b'7'), b""), "kind"),
        (model(), "twice"),
    ];
    for (hostile, why) in cases {
        let message = refusal(&packed(&[model(), hostile]));
        assert!(message.contains(why), "{why}: {message}");
    }
    assert!(Parts::new().insert("../x", Vec::new()).is_err());
    assert!(parts().insert("card.md", Vec::new()).is_err());
}

#[test]
fn limits_hold() {
    let many: Vec<Vec<u8>> =
        std::iter::once(model()).chain((0..64).map(|i| entry(&format!("golden/{i}.bin"), EntryType::Regular, b""))).collect();
    assert!(refusal(&packed(&many)).contains("more than 64 entries"));

    let bomb = packed(&[model(), entry("card.md", EntryType::Regular, &vec![0; 1 << 20])]);
    assert!(bomb.len() < 20_000);
    let small = Limits { unpacked_bytes: 1 << 19, ..Limits::default() };
    assert!(read(bomb.as_slice(), &small).unwrap_err().to_string().contains("exceed"));

    // A size that only the header claims costs nothing.
    let mut liar = Header::new_ustar();
    liar.set_path("card.md").unwrap();
    liar.set_size(1 << 30);
    liar.set_entry_type(EntryType::Regular);
    liar.set_cksum();
    assert!(read(packed(&[model(), liar.as_bytes().to_vec()]).as_slice(), &Limits::default()).is_err());

    let good = write(&parts()).unwrap().bytes;
    let exact = Limits { packed_bytes: good.len() as u64, ..Limits::default() };
    assert!(read(good.as_slice(), &exact).is_ok());
    let short = Limits { packed_bytes: good.len() as u64 - 1, ..Limits::default() };
    assert!(read(good.as_slice(), &short).is_err());
}

#[test]
fn nothing_may_follow_the_archive() {
    let good = write(&parts()).unwrap().bytes;
    assert!(refusal(&[good.as_slice(), b"x"].concat()).contains("after the end"));
    assert!(refusal(&[good.as_slice(), good.as_slice()].concat()).contains("after the end"));
    let mut tar = model();
    tar.extend([0; 1024]);
    tar.extend(entry("card.md", EntryType::Regular, b"hidden"));
    assert!(refusal(&squeeze(&tar)).contains("after the last entry"));
    let mut padded = model();
    padded.resize(padded.len() + 2 * MAX_PADDING as usize, 0);
    assert!(refusal(&squeeze(&padded)).contains("endless padding"));
    assert!(refusal(&packed(&[entry("card.md", EntryType::Regular, b"")])).contains("model.onnx"));
    for cut in [0, 5, 12, good.len() / 2, good.len() - 1] {
        assert!(read(&good[..cut], &Limits::default()).is_err(), "{cut}");
    }
}

proptest! {
    /// Whatever bit flips: other parts never come out.
    #[test]
    fn a_flipped_bit_never_gives_other_parts(at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let mut bytes = write(&parts()).unwrap().bytes;
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        // A few bits mean nothing: in the gzip header, and after the last compressed block. The manifest's checksum covers them.
        if let Ok(read) = read(bytes.as_slice(), &Limits::default()) {
            prop_assert_eq!(read, parts());
        }
    }
}
