//! The store on one machine: SQLite in WAL mode with full synchronisation, one writing connection and a few that read.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::{path::Path, pin::Pin, time::Duration};

use sqlx::{
    Connection, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Mutex;

use super::{Done, Intent, Later, Store, StoreError, StreamName, Trouble};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for another program, such as a backup, to let go.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that read.
const READERS: u32 = 2;

/// A store in one SQLite file.
pub struct SqliteStore {
    options: SqliteConnectOptions,
    readers: SqlitePool,
    /// Absent while a group is being written: a write that is dropped half-way drops its connection, and so its transaction.
    writer: Mutex<Option<SqliteConnection>>,
}

impl SqliteStore {
    /// Opens the file, makes it if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// [`Trouble::Newer`] if a newer version of this program has written it; [`StoreError::Corrupt`] if it is no database.
    pub fn open(path: &Path) -> Later<'static, Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        Box::pin(Self::with(options))
    }

    pub(super) async fn with(options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let mut writer = Self::connect(&options).await?;
        // Not `run`: its bound on the connection's lifetime would keep this future from being sent to another thread.
        MIGRATIONS.run_direct(None, &mut writer, false).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(options.clone().create_if_missing(false));
        Ok(Self { options, readers, writer: Mutex::new(Some(writer)) })
    }

    /// Waits for the running write, then closes every connection.
    pub fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let writer = self.writer.lock().await.take();
            if let Some(writer) = writer
                && let Err(error) = writer.close().await
            {
                tracing::warn!(%error, "closing the database");
            }
            self.readers.close().await;
        })
    }

    async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
        Ok(SqliteConnection::connect_with(options).await?)
    }

    async fn write_group(&self, group: Vec<Intent>) -> Result<Vec<Result<Done, StoreError>>, StoreError> {
        let mut slot = self.writer.lock().await;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => Self::connect(&self.options).await?,
        };
        let verdicts = write::group(&mut connection, group).await?;
        *slot = Some(connection);
        Ok(verdicts)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let trouble = match &error {
            sqlx::Error::Database(database) => {
                // The low byte is the primary result code: https://www.sqlite.org/rescode.html
                match database.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
                    Some(13) => Trouble::DiskFull,
                    Some(5 | 6) => Trouble::Busy,
                    Some(11 | 26) => return Self::Corrupt { what: "file".into(), why: error.to_string() },
                    _ => Trouble::Io,
                }
            }
            sqlx::Error::ColumnDecode { index, source } => {
                return Self::Corrupt { what: format!("column {index}"), why: source.to_string() };
            }
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Trouble::Closed,
            _ => Trouble::Io,
        };
        Self::Unavailable { trouble, source: Some(Box::new(error)) }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(_) => Self::Unavailable { trouble: Trouble::Newer, source: Some(Box::new(error)) },
            MigrateError::Execute(error) => error.into(),
            MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Corrupt { what: "schema".into(), why: other.to_string() },
        }
    }
}

/// A number as SQLite has it. Times and counts never come near the border.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
