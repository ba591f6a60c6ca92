//! What only a store on a disk can go through.

use sapwood_protocol::Timestamp;
use sqlx::{Connection, sqlite::SqliteConnectOptions};

use super::*;
use crate::store::{Append, Lease, NewEvent};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

async fn take(store: &SqliteStore) -> Lease {
    let resource = StreamName::new("run", "a");
    let take = Intent::TakeLease { resource, holder: "here".into(), now: NOW, expires: NOW + Duration::from_secs(9) };
    match store.write(vec![take]).await.unwrap().remove(0).unwrap() {
        Done::Leased(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn append(lease: &Lease, expected: u64, payload: Vec<u8>) -> Intent {
    let events = vec![NewEvent { kind: "fact", payload }];
    let (lease, letters) = (lease.clone(), Vec::new());
    Intent::Append(Box::new(Append {
        lease,
        expected,
        events,
        letters,
        summary: None,
        ended: false,
        release: None,
        submitted: None,
        at: NOW,
    }))
}

/// R-fault "disk full at the coordinator": the write says so, nothing of it stays, and once there is room it goes on.
#[tokio::test]
async fn a_full_disk_is_named_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        SqliteConnectOptions::new().filename(folder.path().join("db")).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    SqliteStore::with(options.clone()).await.unwrap().close().await;
    // SQLite's own limit gives the same answer as a full file system: SQLITE_FULL.
    let store = SqliteStore::with(options.clone().pragma("max_page_count", "40")).await.unwrap();
    let lease = take(&store).await;
    assert!(store.write(vec![append(&lease, 0, b"1".to_vec())]).await.unwrap()[0].is_ok());
    let error = store.write(vec![append(&lease, 1, b"2".to_vec()), append(&lease, 2, vec![b' '; 1 << 20])]).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { trouble: Trouble::DiskFull, .. }), "{error:?}");
    let name = StreamName::new("run", "a");
    assert_eq!(store.events(&name, 0).await.unwrap().len(), 1, "the whole group is undone");
    assert!(store.write(vec![append(&lease, 1, b"2".to_vec())]).await.unwrap()[0].is_ok());
    store.close().await;
    let roomy = SqliteStore::with(options).await.unwrap();
    assert!(roomy.write(vec![append(&lease, 2, vec![b' '; 1 << 20])]).await.unwrap()[0].is_ok());
}

#[tokio::test]
async fn it_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let store = SqliteStore::open(&file).await.unwrap();
    let lease = take(&store).await;
    assert!(store.write(vec![append(&lease, 0, b"1".to_vec())]).await.unwrap()[0].is_ok());
    // No close: as after a kill.
    drop(store);
    let store = SqliteStore::open(&file).await.unwrap();
    assert_eq!(store.events(&lease.resource, 0).await.unwrap().len(), 1);
    assert!(take(&store).await.epoch > lease.epoch);
}

#[tokio::test]
async fn a_write_that_is_dropped_half_way_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("db")).await.unwrap();
    let lease = take(&store).await;
    {
        let group = (0..64).map(|n| append(&lease, n, vec![b' '; 4096])).collect();
        let mut write = store.write(group);
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            polls += 1;
            assert!(write.as_mut().poll(cx).is_pending(), "it cannot be done so soon");
            if polls > 20 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
    assert_eq!(store.events(&lease.resource, 0).await.unwrap().len(), 0);
    assert!(store.write(vec![append(&lease, 0, b"1".to_vec())]).await.unwrap()[0].is_ok(), "a new connection takes over");
}

#[tokio::test]
async fn a_file_of_a_newer_version_and_one_that_is_no_database_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    SqliteStore::open(&file).await.unwrap().close().await;
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&file)).await.unwrap();
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', 1, x'00', 0)";
    sqlx::query(newer).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let error = SqliteStore::open(&file).await.err().unwrap();
    assert!(matches!(error, StoreError::Unavailable { trouble: Trouble::Newer, .. }), "{error:?}");

    let nonsense = folder.path().join("nonsense");
    std::fs::write(&nonsense, vec![7; 8192]).unwrap();
    let error = SqliteStore::open(&nonsense).await.err().unwrap();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}
