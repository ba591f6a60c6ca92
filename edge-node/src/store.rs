//! What a node remembers across restarts, in one SQLite file: its ticket, some settings, and the journal of its slots.
//!
//! Keys and certificates are files of their own (see [`crate::identity`]); vectors never reach the disk.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use sapwood_protocol::Ticket;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

/// The newest layout that this build can read; a newer one is refused rather than damaged.
const LAYOUT: i64 = 2;

const TABLES: &str = "
    CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE slot_journal (seq INTEGER PRIMARY KEY, event BLOB NOT NULL) STRICT;
";
/// Since layout 2.
const PRIVACY: &str = "
    CREATE TABLE privacy_ledger (seq INTEGER PRIMARY KEY, event BLOB NOT NULL) STRICT;
    PRAGMA user_version = 2;
";

/// Why the node's memory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Two processes, one node.
    #[error("{} is in use by another process; a node runs once", folder.display())]
    Locked {
        /// The state folder.
        folder: PathBuf,
    },
    /// Written by a newer build.
    #[error("{} was written by a newer version (layout {found}, this one reads {LAYOUT}); upgrade, or use another state folder", file.display())]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// A row that this build cannot read.
    #[error("the stored {what} cannot be read; restore the state folder or enrol the node again")]
    Damaged {
        /// Which.
        what: &'static str,
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file system refuses.
    #[error("{} cannot be opened", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refuses: a full disk, most often.
    #[error("the node's database cannot be used; check the disk's space and health")]
    Database(#[from] sqlx::Error),
}

/// The node's memory; cheap to clone. Every write is on disk when its call returns.
#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
    _lock: std::sync::Arc<File>,
}

impl Store {
    /// Opens or creates `node.db` in `folder`, and takes the folder for this process alone.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it, [`StoreError::Newer`] if a newer build wrote it.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { path, source }
        };
        crate::files::private_folder(folder).map_err(at(folder))?;
        let lock_path = folder.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(at(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| StoreError::Locked { folder: folder.to_owned() })?;

        let file = folder.join("node.db");
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        // One connection: writes are few, and SQLite has one writer anyhow.
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None).connect_with(options).await?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&pool).await?;
        match found {
            LAYOUT => {}
            0 | 1 => {
                let mut transaction = pool.begin().await?;
                if found == 0 {
                    sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
                }
                sqlx::raw_sql(PRIVACY).execute(&mut *transaction).await?;
                transaction.commit().await?;
            }
            _ => return Err(StoreError::Newer { file, found }),
        }
        Ok(Self { pool, _lock: std::sync::Arc::new(lock) })
    }

    /// The ticket of the last connection.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ticket(&self) -> Result<Option<Ticket>, StoreError> {
        let row = self.row("ticket").await?;
        row.map(|bytes| Ticket::try_from(bytes.as_slice()).map_err(|e| StoreError::Damaged { what: "ticket", source: e.into() }))
            .transpose()
    }

    /// Remembers the ticket to show at the next connection.
    ///
    /// # Errors
    /// [`StoreError`]; the caller must not go on as if it were stored.
    pub async fn set_ticket(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.set_row("ticket", ticket.as_bytes()).await
    }

    /// A setting under `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is of another type.
    pub async fn setting<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>, StoreError> {
        let row = self.row(key).await?;
        row.map(|bytes| serde_json::from_slice(&bytes).map_err(|e| StoreError::Damaged { what: key, source: e.into() })).transpose()
    }

    /// Remembers a setting.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_setting<T: Serialize>(&self, key: &'static str, value: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|e| StoreError::Damaged { what: key, source: e.into() })?;
        self.set_row(key, &bytes).await
    }

    /// The journal of the slots: every event since the last [`Store::rewrite_slot_journal`], oldest first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if an event cannot be read.
    pub async fn slot_journal<E: DeserializeOwned>(&self) -> Result<Vec<E>, StoreError> {
        let rows: Vec<Vec<u8>> = sqlx::query_scalar("SELECT event FROM slot_journal ORDER BY seq").fetch_all(&self.pool).await?;
        let read =
            |row: Vec<u8>| serde_json::from_slice(&row).map_err(|e| StoreError::Damaged { what: "journal of the slots", source: e.into() });
        rows.into_iter().map(read).collect()
    }

    /// Adds the events of one decision, all or none.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was added, or it is unknown: read the journal again.
    pub async fn append_slot_events<E: Serialize>(&self, events: &[E]) -> Result<(), StoreError> {
        self.journal(events, false).await
    }

    /// Replaces the whole journal by these events, all or none: for a journal that has grown long.
    ///
    /// # Errors
    /// As [`Store::append_slot_events`].
    pub async fn rewrite_slot_journal<E: Serialize>(&self, events: &[E]) -> Result<(), StoreError> {
        self.journal(events, true).await
    }

    async fn journal<E: Serialize>(&self, events: &[E], afresh: bool) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        if afresh {
            sqlx::query("DELETE FROM slot_journal").execute(&mut *transaction).await?;
        }
        for event in events {
            let bytes = serde_json::to_vec(event).map_err(|e| StoreError::Damaged { what: "journal of the slots", source: e.into() })?;
            sqlx::query("INSERT INTO slot_journal (event) VALUES (?)").bind(bytes).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// What this node's privacy ledger was charged, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if an entry cannot be read: nothing may be sent then.
    pub async fn privacy_ledger<E: DeserializeOwned>(&self) -> Result<Vec<E>, StoreError> {
        ledger_in(&self.pool).await
    }

    /// Adds an entry; on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`]: what it would have paid for must not happen.
    pub async fn charge<E: Serialize>(&self, event: &E) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(event).map_err(|e| StoreError::Damaged { what: "privacy ledger", source: e.into() })?;
        sqlx::query("INSERT INTO privacy_ledger (event) VALUES (?)").bind(bytes).execute(&self.pool).await?;
        Ok(())
    }

    /// Writes everything out and closes the file; for an orderly end.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    async fn row(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(sqlx::query_scalar("SELECT value FROM settings WHERE key = ?").bind(key).fetch_optional(&self.pool).await?)
    }

    async fn set_row(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
            .bind(key)
            .bind(value)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

async fn ledger_in<E: DeserializeOwned>(pool: &SqlitePool) -> Result<Vec<E>, StoreError> {
    let rows: Vec<Vec<u8>> = sqlx::query_scalar("SELECT event FROM privacy_ledger ORDER BY seq").fetch_all(pool).await?;
    let read = |row: Vec<u8>| serde_json::from_slice(&row).map_err(|e| StoreError::Damaged { what: "privacy ledger", source: e.into() });
    rows.into_iter().map(read).collect()
}

/// The privacy ledger in a node's state folder, whether or not the node runs; nothing is written.
pub(crate) async fn read_privacy_ledger<E: DeserializeOwned>(folder: &Path) -> Result<Vec<E>, StoreError> {
    let file = folder.join("node.db");
    std::fs::metadata(&file).map_err(|source| StoreError::File { path: file.clone(), source })?;
    let options = SqliteConnectOptions::new().filename(&file).read_only(true).busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    let entries = ledger_in(&pool).await;
    pool.close().await;
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_stored_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        assert_eq!(store.ticket().await.unwrap(), None);
        store.set_ticket(Ticket::new([1; 16])).await.unwrap();
        store.set_ticket(Ticket::new([2; 16])).await.unwrap();
        store.set_setting("window", &(3u8, "x")).await.unwrap();
        store.append_slot_events(&["a", "b"]).await.unwrap();
        store.append_slot_events(&["c"]).await.unwrap();
        drop(store);
        let store = Store::open(dir.path()).await.unwrap();
        assert_eq!(store.ticket().await.unwrap(), Some(Ticket::new([2; 16])));
        assert_eq!(store.setting::<(u8, String)>("window").await.unwrap(), Some((3, "x".into())));
        assert_eq!(store.slot_journal::<String>().await.unwrap(), ["a", "b", "c"]);
        store.charge(&("s1", 5u64)).await.unwrap();
        assert_eq!(store.privacy_ledger::<(String, u64)>().await.unwrap(), [("s1".to_owned(), 5)]);
        store.rewrite_slot_journal(&["c"]).await.unwrap();
        assert_eq!(store.slot_journal::<String>().await.unwrap(), ["c"]);
        assert!(matches!(store.slot_journal::<u32>().await, Err(StoreError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_second_process_and_a_newer_layout_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        assert!(matches!(Store::open(dir.path()).await, Err(StoreError::Locked { .. })));
        sqlx::query("PRAGMA user_version = 9").execute(&store.pool).await.unwrap();
        store.pool.close().await;
        drop(store);
        assert!(matches!(Store::open(dir.path()).await, Err(StoreError::Newer { found: 9, .. })));
    }
}
