//! Rows back into what they were. What does not parse is damage, and is said to be.

use sapwood_protocol::{Digest, Fault, NodeId, ReleaseId, Ticket, Timestamp};
use sqlx::{Row, sqlite::SqliteRow};

use super::{Done, Intent, Later, SqliteStore, Store, StoreError, StreamName, integer};
use crate::store::{Enrollment, EventRow, Letter, LetterKind, NodeRow, ReleaseRow, StreamRow, Submitted};

pub(super) fn number(row: &SqliteRow, column: &'static str) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| corrupt(column, format!("{number} is negative")))
}

pub(super) fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, StoreError> {
    number(row, column).map(Timestamp::from_millis)
}

fn corrupt(what: &str, why: impl ToString) -> StoreError {
    StoreError::Corrupt { what: what.to_owned(), why: why.to_string() }
}

fn name<T: std::str::FromStr<Err = Fault>>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError> {
    row.try_get::<&str, _>(column)?.parse().map_err(|fault| corrupt(column, fault))
}

fn stream_name(row: &SqliteRow, column: &'static str) -> Result<StreamName, StoreError> {
    StreamName::stored(row.try_get(column)?).ok_or_else(|| corrupt(column, "not a stream's name"))
}

fn digest(row: &SqliteRow, column: &'static str) -> Result<Digest, StoreError> {
    Digest::try_from(row.try_get::<&[u8], _>(column)?).map_err(|fault| corrupt(column, fault))
}

fn ticket(row: &SqliteRow, column: &'static str) -> Result<Option<Ticket>, StoreError> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes.map(Ticket::try_from).transpose().map_err(|fault| corrupt(column, fault))
}

fn stream(row: &SqliteRow) -> Result<StreamRow, StoreError> {
    Ok(StreamRow {
        name: stream_name(row, "name")?,
        length: number(row, "length")?,
        live: row.try_get("live")?,
        summary: row.try_get("summary")?,
        created: time(row, "created")?,
        updated: time(row, "updated")?,
    })
}

fn event(row: &SqliteRow) -> Result<EventRow, StoreError> {
    Ok(EventRow { seq: number(row, "seq")?, kind: row.try_get("kind")?, payload: row.try_get("payload")?, at: time(row, "at")? })
}

fn letter(row: &SqliteRow) -> Result<Letter, StoreError> {
    let kind = LetterKind::stored(row.try_get("kind")?).ok_or_else(|| corrupt("kind", "no kind of letter"))?;
    Ok(Letter { node: name(row, "node")?, topic: row.try_get("topic")?, kind, body: row.try_get::<Vec<u8>, _>("body")?.into() })
}

fn node(row: &SqliteRow) -> Result<NodeRow, StoreError> {
    Ok(NodeRow {
        name: name(row, "name")?,
        version: number(row, "version")?,
        membership: row.try_get("membership")?,
        labels: serde_json::from_slice(row.try_get("labels")?).map_err(|error| corrupt("labels", error))?,
        profile: row.try_get("profile")?,
        status: row.try_get("status")?,
        ticket: ticket(row, "ticket")?,
        previous_ticket: ticket(row, "previous_ticket")?,
        seen: time(row, "seen")?,
    })
}

fn enrollment(row: &SqliteRow) -> Result<Enrollment, StoreError> {
    Ok(Enrollment {
        id: digest(row, "id")?,
        token: name(row, "token")?,
        node: name(row, "node")?,
        request: row.try_get("request")?,
        reply: row.try_get("reply")?,
        at: time(row, "at")?,
    })
}

fn release(row: &SqliteRow) -> Result<ReleaseRow, StoreError> {
    Ok(ReleaseRow { name: name(row, "name")?, document: row.try_get("document")?, at: time(row, "at")? })
}

fn submitted(row: &SqliteRow) -> Result<Submitted, StoreError> {
    Ok(Submitted { token: row.try_get("token")?, request: digest(row, "request")?, stream: stream_name(row, "stream")? })
}

fn all<T>(rows: Vec<SqliteRow>, parse: fn(&SqliteRow) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    rows.iter().map(parse).collect()
}

fn one<T>(row: Option<SqliteRow>, parse: fn(&SqliteRow) -> Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    row.as_ref().map(parse).transpose()
}

impl Store for SqliteStore {
    fn write(&self, group: Vec<Intent>) -> Later<'_, Vec<Result<Done, StoreError>>> {
        Box::pin(self.write_group(group))
    }
    fn stream<'a>(&'a self, name: &'a StreamName) -> Later<'a, Option<StreamRow>> {
        Box::pin(async move {
            one(sqlx::query("SELECT * FROM streams WHERE name = ?").bind(name.as_str()).fetch_optional(&self.readers).await?, stream)
        })
    }
    fn streams<'a>(&'a self, kind: &'a str, live_only: bool) -> Later<'a, Vec<StreamRow>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM streams WHERE kind = ? AND live >= ? ORDER BY created, name").bind(kind).bind(live_only);
            all(rows.fetch_all(&self.readers).await?, stream)
        })
    }
    fn events<'a>(&'a self, name: &'a StreamName, from: u64) -> Later<'a, Vec<EventRow>> {
        Box::pin(async move {
            let rows =
                sqlx::query("SELECT * FROM events WHERE stream = ? AND seq >= ? ORDER BY seq").bind(name.as_str()).bind(integer(from));
            let events = all(rows.fetch_all(&self.readers).await?, event)?;
            match events.iter().zip(from..).find(|(event, seq)| event.seq != *seq) {
                Some((_, missing)) => Err(corrupt(name.as_str(), format!("event {missing} is missing"))),
                None => Ok(events),
            }
        })
    }
    fn letters<'a>(&'a self, node: &'a NodeId) -> Later<'a, Vec<Letter>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM outbox WHERE node = ? ORDER BY topic").bind(node.as_str());
            all(rows.fetch_all(&self.readers).await?, letter)
        })
    }
    fn letters_about<'a>(&'a self, topic: &'a str) -> Later<'a, Vec<Letter>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM outbox WHERE topic = ? ORDER BY node").bind(topic);
            all(rows.fetch_all(&self.readers).await?, letter)
        })
    }
    fn nodes(&self) -> Later<'_, Vec<NodeRow>> {
        Box::pin(async move { all(sqlx::query("SELECT * FROM nodes ORDER BY name").fetch_all(&self.readers).await?, node) })
    }
    fn node<'a>(&'a self, name: &'a NodeId) -> Later<'a, Option<NodeRow>> {
        Box::pin(async move {
            one(sqlx::query("SELECT * FROM nodes WHERE name = ?").bind(name.as_str()).fetch_optional(&self.readers).await?, node)
        })
    }
    fn enrollment(&self, id: Digest) -> Later<'_, Option<Enrollment>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT * FROM enrollments WHERE id = ?").bind(id.as_bytes().to_vec());
            one(row.fetch_optional(&self.readers).await?, enrollment)
        })
    }
    fn pending_enrollments(&self) -> Later<'_, Vec<Enrollment>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM enrollments WHERE reply IS NULL ORDER BY at, token");
            all(rows.fetch_all(&self.readers).await?, enrollment)
        })
    }
    fn releases(&self) -> Later<'_, Vec<ReleaseRow>> {
        Box::pin(async move { all(sqlx::query("SELECT * FROM releases ORDER BY at, name").fetch_all(&self.readers).await?, release) })
    }
    fn release<'a>(&'a self, name: &'a ReleaseId) -> Later<'a, Option<ReleaseRow>> {
        Box::pin(async move {
            one(sqlx::query("SELECT * FROM releases WHERE name = ?").bind(name.as_str()).fetch_optional(&self.readers).await?, release)
        })
    }
    fn submission<'a>(&'a self, token: &'a str) -> Later<'a, Option<Submitted>> {
        Box::pin(async move {
            one(sqlx::query("SELECT * FROM submissions WHERE token = ?").bind(token).fetch_optional(&self.readers).await?, submitted)
        })
    }
    fn constant<'a>(&'a self, key: &'a str, initial: Vec<u8>) -> Later<'a, Vec<u8>> {
        Box::pin(async move {
            let mut slot = self.writer.lock().await;
            let mut connection = match slot.take() {
                Some(connection) => connection,
                None => Self::connect(&self.options).await?,
            };
            sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(key)
                .bind(initial)
                .execute(&mut connection)
                .await?;
            let row = sqlx::query("SELECT value FROM meta WHERE key = ?").bind(key).fetch_one(&mut connection).await?;
            *slot = Some(connection);
            Ok(row.try_get("value")?)
        })
    }
}
