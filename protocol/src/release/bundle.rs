//! The bundle: a `tar.gz` in memory, the same bytes for the same parts, and a reader that trusts nothing.
//!
//! Entries are regular files in sorted order, mode 0644, owner 0, one fixed time; the gzip header names no file, no time and
//! no system. Compression is done by `miniz_oxide`, whose output does not depend on the processor; faster ones choose their
//! matches by the instructions they find.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read},
};

use flate2::{Crc, bufread::GzDecoder};

use super::{
    fault::ReleaseFault,
    golden::{self, Array},
    manifest::Component,
};
use crate::{digest::Digest, fault::Fault};

/// Entries at the top level; `golden/` may hold more.
pub const NAMES: [&str; 7] = [MODEL, PREPROCESS, "schema.json", "config.json", "runtime.json", "card.md", "reference.sketch"];
/// The model that is served. Every bundle has it.
pub const MODEL: &str = "model.onnx";
/// The graph that goes before it, if there is one.
pub const PREPROCESS: &str = "preprocess.onnx";

/// 1980-01-01, the oldest time that no unpacking tool complains about.
const TIME: u64 = 315_532_800;
/// RFC 1952: magic, deflate, no flags, no time, no extra flags, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const LEVEL: u8 = 6;
/// Zeros that may follow the last entry: tar pads to 10 KiB, larger blocking factors are rare.
const MAX_PADDING: u64 = 1 << 20;

/// The entries of a bundle by name. Only names that a bundle may hold get in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts(BTreeMap<String, Vec<u8>>);

/// How much a reader takes in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Of the archive, packed.
    pub packed_bytes: u64,
    /// Of all entries together, unpacked.
    pub unpacked_bytes: u64,
    /// How many entries.
    pub entries: usize,
}

impl Default for Limits {
    /// 1 GiB packed, 2 GiB unpacked, 64 entries.
    fn default() -> Self {
        Self { packed_bytes: 1 << 30, unpacked_bytes: 2 << 30, entries: 64 }
    }
}

/// A packed bundle.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// The archive.
    pub bytes: Vec<u8>,
    /// Its SHA-256: the released digest.
    pub digest: Digest,
}

impl Parts {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an entry. Refuses a name that a bundle does not hold, or holds already.
    pub fn insert(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        check_name(name)?;
        if self.0.contains_key(name) {
            return Err(refuse(name, "appears twice"));
        }
        self.0.insert(name.to_owned(), bytes);
        Ok(())
    }
    /// An entry's bytes.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }
    /// All entries, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
    /// Digest and length of each, as the manifest lists them.
    pub fn components(&self) -> BTreeMap<String, Component> {
        self.0.iter().map(|(name, bytes)| (name.clone(), Component { digest: Digest::of(bytes), bytes: bytes.len() as u64 })).collect()
    }
    /// The golden inputs, in the order in which the graph has them, and the outputs, if the bundle has both.
    pub fn golden(&self) -> Result<Option<(Vec<Array>, Array)>, Fault> {
        let read = |name: &str| self.get(name).map(|bytes| Array::from_npy(name, bytes)).transpose();
        let mut inputs: Vec<Array> = read(golden::INPUTS)?.into_iter().collect();
        if inputs.is_empty() {
            while let Some(array) = read(&golden::input(inputs.len(), 2))? {
                inputs.push(array);
            }
        }
        Ok(read(golden::OUTPUTS)?.filter(|_| !inputs.is_empty()).map(|outputs| (inputs, outputs)))
    }
}

/// Packs `parts`. Same parts, same bytes, on every machine.
pub fn write(parts: &Parts) -> Result<Packed, Fault> {
    complete(parts)?;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in &parts.0 {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_path(name).map_err(|e| refuse(name, &e.to_string()))?;
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(TIME);
        header.set_cksum();
        archive.append(&header, bytes.as_slice()).map_err(|e| refuse(name, &e.to_string()))?;
    }
    let bytes = gzip(&archive.into_inner().map_err(|e| broken(&e))?);
    let digest = Digest::of(&bytes);
    Ok(Packed { bytes, digest })
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(plain);
    let mut bytes = GZIP_HEADER.to_vec();
    bytes.append(&mut miniz_oxide::deflate::compress_to_vec(plain, LEVEL));
    bytes.extend(crc.sum().to_le_bytes());
    bytes.extend(crc.amount().to_le_bytes());
    bytes
}

/// Unpacks a bundle into memory, refusing by name whatever an honest writer never writes: absolute paths, `..`, links,
/// devices, folders, extended headers, duplicates, unknown names, too many entries, more bytes than `limits` allows,
/// anything after the archive's end.
pub fn read(archive: impl Read, limits: &Limits) -> Result<Parts, Fault> {
    // One byte more than allowed tells "too long" from "just fits".
    let packed = BufReader::new(archive.take(limits.packed_bytes.saturating_add(1)));
    let mut archive = tar::Archive::new(GzDecoder::new(packed));
    let mut parts = Parts::new();
    let mut budget = limits.unpacked_bytes;
    // Raw: extended headers are not interpreted but seen, and refused as the entry kinds that they are.
    for entry in archive.entries().map_err(|e| broken(&e))?.raw(true) {
        let mut entry = entry.map_err(|e| broken(&e))?;
        let path = entry.path_bytes();
        let name = std::str::from_utf8(&path).map_err(|_| refuse(&String::from_utf8_lossy(&path), "its name is not UTF-8"))?.to_owned();
        if !entry.header().entry_type().is_file() {
            return Err(refuse(&name, &format!("only regular files are taken, this is {}", kind(entry.header().entry_type()))));
        }
        if parts.0.len() >= limits.entries {
            return Err(refuse(&name, &format!("more than {} entries", limits.entries)));
        }
        let size = entry.size();
        budget =
            budget.checked_sub(size).ok_or_else(|| refuse(&name, &format!("the unpacked parts exceed {} bytes", limits.unpacked_bytes)))?;
        // Names first: nothing is read for an entry that is refused.
        check_name(&name)?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| broken(&e))?;
        if bytes.len() as u64 != size {
            return Err(refuse(&name, &format!("{} of {size} bytes are there", bytes.len())));
        }
        parts.insert(&name, bytes)?;
    }
    ends_here(archive.into_inner(), limits)?;
    complete(&parts)?;
    Ok(parts)
}

/// After the last entry: zeros up to the end of the stream, then the end of the file.
fn ends_here<R: Read>(mut decoder: GzDecoder<BufReader<io::Take<R>>>, limits: &Limits) -> Result<(), Fault> {
    let mut padding = 0;
    let mut buffer = [0; 4096];
    loop {
        match decoder.read(&mut buffer).map_err(|e| broken(&e))? {
            0 => break,
            read if buffer[..read].iter().all(|byte| *byte == 0) => padding += read as u64,
            _ => return Err(broken("data after the last entry")),
        }
        if padding > MAX_PADDING {
            return Err(broken("endless padding after the last entry"));
        }
    }
    let mut rest = decoder.into_inner();
    if rest.read(&mut buffer).map_err(|e| broken(&e))? > 0 {
        return Err(broken("data after the end of the archive"));
    }
    if rest.into_inner().limit() == 0 {
        return Err(broken(format!("longer than {} bytes", limits.packed_bytes)));
    }
    Ok(())
}

fn complete(parts: &Parts) -> Result<(), Fault> {
    if parts.get(MODEL).is_none() {
        return Err(ReleaseFault::Component { name: MODEL.into(), why: "missing; every bundle has it".into() }.into());
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), Fault> {
    let why = if name.is_empty() {
        "its name is empty"
    } else if name.starts_with('/') || name.contains('\\') || name.contains(':') {
        "absolute paths and drives are refused"
    } else if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        "paths through \".\", \"..\" or nothing are refused"
    } else if NAMES.contains(&name) || name.strip_prefix("golden/").is_some_and(is_golden) {
        return Ok(());
    } else {
        "not a part that a bundle may hold"
    };
    Err(refuse(name, why))
}

/// `inputs.npy`, `case-1.bin`, `notes.json`.
fn is_golden(file: &str) -> bool {
    let Some((stem, suffix)) = file.rsplit_once('.') else { return false };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    matches!(suffix, "bin" | "json" | "npy") && (1..=48).contains(&stem.len()) && stem.bytes().all(plain)
}

fn kind(entry: tar::EntryType) -> String {
    match entry {
        tar::EntryType::Directory => "a folder".into(),
        tar::EntryType::Symlink => "a symbolic link".into(),
        tar::EntryType::Link => "a hard link".into(),
        tar::EntryType::Char | tar::EntryType::Block => "a device".into(),
        tar::EntryType::Fifo => "a pipe".into(),
        tar::EntryType::GNUSparse => "a sparse file".into(),
        tar::EntryType::XHeader | tar::EntryType::XGlobalHeader | tar::EntryType::GNULongName | tar::EntryType::GNULongLink => {
            "an extended header".into()
        }
        other => format!("of kind {:?}", char::from(other.as_byte())),
    }
}

fn refuse(entry: &str, why: &str) -> Fault {
    ReleaseFault::Entry { entry: entry.chars().take(120).collect(), why: why.to_owned() }.into()
}

fn broken(why: impl ToString) -> Fault {
    ReleaseFault::Bundle { why: why.to_string() }.into()
}

#[cfg(test)]
pub(crate) mod tests;
