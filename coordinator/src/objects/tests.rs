use failpoint::{Hook, Outcome};

use super::*;

fn open() -> (tempfile::TempDir, Objects) {
    let folder = tempfile::tempdir().unwrap();
    let objects = Objects::open(folder.path()).unwrap();
    (folder, objects)
}

fn files(folder: &Path) -> usize {
    ["tmp", "partials"].iter().map(|name| fs::read_dir(folder.join(name)).unwrap().count()).sum()
}

#[test]
fn an_object_is_found_under_its_digest() {
    let (folder, objects) = open();
    let digest = objects.put(b"bytes").unwrap();
    assert_eq!(digest, Digest::of(b"bytes"));
    assert_eq!(objects.put(b"bytes").unwrap(), digest, "twice does no harm");
    assert_eq!(objects.read(digest).unwrap(), b"bytes");
    let (mut file, length) = objects.open_at(digest, 2).unwrap();
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), length), ("tes", 5));
    assert!(matches!(objects.open_at(digest, 6), Err(ObjectError::Offset { .. })));
    assert_eq!(files(folder.path()), 0);
    objects.remove(digest).unwrap();
    objects.remove(digest).unwrap();
    assert!(matches!(objects.read(digest), Err(ObjectError::Missing { .. })));
}

#[test]
fn a_damaged_object_is_not_handed_out_as_whole() {
    let (folder, objects) = open();
    let digest = objects.put(b"bytes").unwrap();
    let hex = digest.hex();
    fs::write(folder.path().join("objects").join(&hex[..2]).join(&hex), b"bites").unwrap();
    assert!(matches!(objects.read(digest), Err(ObjectError::Digest { .. })));
}

#[test]
fn a_transfer_goes_on_where_it_stopped() {
    let (folder, objects) = open();
    let digest = Digest::of(b"0123456789");
    let mut first = objects.receive(digest, 10, 0).unwrap();
    first.push(b"0123").unwrap();
    drop(first);
    let objects = Objects::open(folder.path()).unwrap();
    assert_eq!(objects.received(digest), 4);
    assert!(matches!(objects.receive(digest, 10, 3), Err(ObjectError::Offset { have: 4, .. })));
    assert!(matches!(objects.receive(digest, 10, 4).unwrap().finish(), Err(ObjectError::Offset { .. })), "it is not whole yet");
    let mut second = objects.receive(digest, 10, 4).unwrap();
    assert!(matches!(objects.receive(digest, 10, 0), Err(ObjectError::Busy { .. })), "one sender at a time");
    second.push(b"456789").unwrap();
    assert!(matches!(second.push(b"!"), Err(ObjectError::Offset { .. })));
    second.finish().unwrap();
    assert_eq!(objects.read(digest).unwrap(), b"0123456789");
    assert_eq!(objects.received(digest), 10);
    assert_eq!(files(folder.path()), 0);
    // Somebody who did not hear that it is here sends the rest again, and is told that all is well.
    objects.receive(digest, 10, 10).unwrap().finish().unwrap();
}

#[test]
fn a_transfer_of_other_bytes_is_refused_and_can_be_repeated() {
    let (folder, objects) = open();
    let digest = Digest::of(b"right");
    let mut wrong = objects.receive(digest, 5, 0).unwrap();
    wrong.push(b"wrong").unwrap();
    assert!(matches!(wrong.finish(), Err(ObjectError::Digest { actual, .. }) if actual == Digest::of(b"wrong")));
    assert!(!objects.has(digest));
    assert_eq!(files(folder.path()), 0);
    let mut right = objects.receive(digest, 5, 0).unwrap();
    right.push(b"right").unwrap();
    right.finish().unwrap();
    assert!(objects.has(digest));
}

#[test]
fn a_kill_at_any_point_leaves_the_object_or_nothing() {
    for point in POINTS {
        let (folder, objects) = open();
        let digest = Digest::of(b"bytes");
        {
            let _dead = Hook::kill_at(point.name(), 1).install();
            assert!(matches!(objects.put(b"bytes"), Err(ObjectError::Killed(_))), "{point}");
            let mut partial = objects.receive(digest, 5, 0).unwrap();
            partial.push(b"bytes").unwrap();
        }
        let objects = Objects::open(folder.path()).unwrap();
        assert!(matches!(objects.read(digest), Ok(_) | Err(ObjectError::Missing { .. })), "{point}");
        objects.put(b"bytes").unwrap();
        assert_eq!(objects.read(digest).unwrap(), b"bytes");
    }
}

#[test]
fn a_full_disk_has_a_name_of_its_own() {
    let full = ObjectError::from(io::Error::from(io::ErrorKind::StorageFull));
    assert!(matches!(full, ObjectError::DiskFull));
    assert!(matches!(Fault::from(full), Fault::Unavailable(_)));
    // Linux has a device that is always full; a writer on it fails as on a full disk and leaves nothing.
    let (folder, objects) = open();
    let Ok(device) = OpenFull::open() else { return };
    let mut writer = objects.writer().unwrap();
    writer.file = device.0;
    let error = ObjectError::from(writer.write_all(b"bytes").unwrap_err());
    assert!(matches!(error, ObjectError::DiskFull), "{error:?}");
    drop(writer);
    assert_eq!(files(folder.path()), 0);
}

struct OpenFull(File);

impl OpenFull {
    fn open() -> io::Result<Self> {
        fs::OpenOptions::new().write(true).open("/dev/full").map(Self)
    }
}

#[test]
fn hooks_see_each_rename_once() {
    use std::sync::{Arc, Mutex};
    let (_folder, objects) = open();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let _guard = Hook::new(move |name: &str| -> Outcome {
        log.lock().unwrap().push(name.to_owned());
        Ok(())
    })
    .install();
    objects.put(b"bytes").unwrap();
    assert_eq!(*seen.lock().unwrap(), ["object.synced", "object.renamed"]);
}
