//! A group of intentions in one transaction, a savepoint each.

use sapwood_protocol::{Ticket, Timestamp};
use sqlx::{Row, SqliteConnection};

use super::integer;
use crate::store::{Append, Done, Enrollment, Intent, Lease, NodeRow, StoreError, StreamName};

type Verdict = Result<Done, StoreError>;

/// Carries out all of `group`. An error leaves the connection in no state to be used again.
pub(super) async fn group(db: &mut SqliteConnection, group: Vec<Intent>) -> Result<Vec<Verdict>, StoreError> {
    let mut verdicts = Vec::with_capacity(group.len());
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *db).await?;
    for intent in group {
        sqlx::query("SAVEPOINT intent").execute(&mut *db).await?;
        let verdict = match carry_out(db, intent).await {
            Err(error) if !error.is_verdict() => return Err(error),
            verdict => verdict,
        };
        if verdict.is_err() {
            sqlx::query("ROLLBACK TO intent").execute(&mut *db).await?;
        }
        sqlx::query("RELEASE intent").execute(&mut *db).await?;
        verdicts.push(verdict);
    }
    sqlx::query("COMMIT").execute(&mut *db).await?;
    Ok(verdicts)
}

async fn carry_out(db: &mut SqliteConnection, intent: Intent) -> Verdict {
    match intent {
        Intent::Append(intent) => append(db, *intent).await?,
        Intent::TakeLease { resource, holder, now, expires } => return take_lease(db, resource, holder, now, expires).await,
        Intent::RenewLease { lease, expires } => {
            let renewed = sqlx::query("UPDATE leases SET expires = ? WHERE resource = ? AND epoch = ? AND holder = ?")
                .bind(integer(expires.millis()))
                .bind(lease.resource.as_str())
                .bind(integer(lease.epoch))
                .bind(&lease.holder);
            if renewed.execute(db).await?.rows_affected() == 0 {
                return Err(StoreError::Fenced { resource: lease.resource.to_string() });
            }
        }
        Intent::ReleaseLease(lease) => {
            let given_back = sqlx::query("UPDATE leases SET holder = NULL WHERE resource = ? AND epoch = ? AND holder = ?");
            given_back.bind(lease.resource.as_str()).bind(integer(lease.epoch)).bind(&lease.holder).execute(db).await?;
        }
        Intent::PutNode(row) => put_node(db, *row).await?,
        Intent::Enroll(request) => enroll(db, *request).await?,
        Intent::Answer { id, reply } => {
            let answered =
                sqlx::query("UPDATE enrollments SET reply = coalesce(reply, ?) WHERE id = ?").bind(reply).bind(&id.as_bytes()[..]);
            if answered.execute(db).await?.rows_affected() == 0 {
                return Err(StoreError::Missing { what: format!("enrolment request {id}") });
            }
        }
        Intent::Forget { topic } => {
            sqlx::query("DELETE FROM outbox WHERE topic = ?").bind(topic).execute(db).await?;
        }
    }
    Ok(Done::Written)
}

async fn append(db: &mut SqliteConnection, append: Append) -> Result<(), StoreError> {
    let Append { lease, expected, events, letters, summary, ended, release, submitted, at } = append;
    let name = lease.resource.as_str();
    let at = integer(at.millis());

    let held = sqlx::query("SELECT 1 FROM leases WHERE resource = ? AND epoch = ? AND holder = ?");
    if held.bind(name).bind(integer(lease.epoch)).bind(&lease.holder).fetch_optional(&mut *db).await?.is_none() {
        return Err(StoreError::Fenced { resource: name.to_owned() });
    }

    let length = integer(expected + events.len() as u64);
    let moved = if expected == 0 {
        sqlx::query(
            "INSERT INTO streams (name, kind, length, live, summary, created, updated) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(name)
        .bind(lease.resource.kind())
        .bind(length)
        .bind(!ended)
        .bind(summary.as_deref().unwrap_or(b"{}"))
        .bind(at)
        .bind(at)
    } else {
        sqlx::query(
            "UPDATE streams SET length = ?, live = live AND ?, summary = coalesce(?, summary), updated = ? WHERE name = ? AND length = ?",
        )
        .bind(length)
        .bind(!ended)
        .bind(summary.as_deref())
        .bind(at)
        .bind(name)
        .bind(integer(expected))
    };
    if moved.execute(&mut *db).await?.rows_affected() == 0 {
        return Err(StoreError::Conflict { what: name.to_owned() });
    }
    for (event, seq) in events.into_iter().zip(expected..) {
        sqlx::query("INSERT INTO events (stream, seq, kind, payload, at) VALUES (?, ?, ?, ?, ?)")
            .bind(name)
            .bind(integer(seq))
            .bind(event.kind)
            .bind(event.payload)
            .bind(at)
            .execute(&mut *db)
            .await?;
    }
    for letter in letters {
        sqlx::query(
            "INSERT INTO outbox (node, topic, kind, body) VALUES (?, ?, ?, ?)
             ON CONFLICT (node, topic) DO UPDATE SET kind = excluded.kind, body = excluded.body",
        )
        .bind(letter.node.as_str())
        .bind(&letter.topic)
        .bind(letter.kind.as_str())
        .bind(&letter.body[..])
        .execute(&mut *db)
        .await?;
    }
    if let Some(release) = release {
        let put = sqlx::query(
            "INSERT INTO releases (name, document, at) VALUES (?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET at = releases.at WHERE document = excluded.document",
        );
        let put = put.bind(release.name.as_str()).bind(release.document).bind(integer(release.at.millis()));
        if put.execute(&mut *db).await?.rows_affected() == 0 {
            return Err(StoreError::Conflict { what: format!("release {}", release.name) });
        }
    }
    if let Some(submitted) = submitted {
        let put = sqlx::query("INSERT INTO submissions (token, request, stream) VALUES (?, ?, ?) ON CONFLICT DO NOTHING");
        let put = put.bind(&submitted.token).bind(&submitted.request.as_bytes()[..]).bind(submitted.stream.as_str());
        if put.execute(&mut *db).await?.rows_affected() == 0 {
            return Err(StoreError::Conflict { what: format!("submission {}", submitted.token) });
        }
    }
    Ok(())
}

async fn take_lease(db: &mut SqliteConnection, resource: StreamName, holder: String, now: Timestamp, expires: Timestamp) -> Verdict {
    let taken = sqlx::query(
        "INSERT INTO leases (resource, holder, epoch, expires) VALUES (?, ?, 1, ?)
         ON CONFLICT (resource) DO UPDATE SET holder = excluded.holder, epoch = epoch + 1, expires = excluded.expires
             WHERE leases.holder IS NULL OR leases.holder = excluded.holder OR leases.expires <= ?
         RETURNING epoch",
    );
    let taken = taken.bind(resource.as_str()).bind(&holder).bind(integer(expires.millis())).bind(integer(now.millis()));
    if let Some(row) = taken.fetch_optional(&mut *db).await? {
        return Ok(Done::Leased(Lease { resource, holder, epoch: super::read::number(&row, "epoch")? }));
    }
    let row = sqlx::query("SELECT holder, expires FROM leases WHERE resource = ?").bind(resource.as_str()).fetch_one(db).await?;
    Err(StoreError::Held { resource: resource.to_string(), holder: row.try_get("holder")?, until: super::read::time(&row, "expires")? })
}

async fn put_node(db: &mut SqliteConnection, row: NodeRow) -> Result<(), StoreError> {
    let labels = serde_json::to_vec(&row.labels).expect("a map of strings is JSON");
    let ticket = |ticket: Option<Ticket>| ticket.map(|ticket| ticket.as_bytes().to_vec());
    let put = sqlx::query(
        "INSERT INTO nodes (name, version, membership, labels, profile, status, ticket, previous_ticket, seen)
         SELECT ?1, ?2 + 1, ?3, ?4, ?5, ?6, ?7, ?8, ?9
         WHERE ?2 = coalesce((SELECT version FROM nodes WHERE name = ?1), 0)
         ON CONFLICT (name) DO UPDATE SET version = excluded.version, membership = excluded.membership, labels = excluded.labels,
             profile = excluded.profile, status = excluded.status, ticket = excluded.ticket,
             previous_ticket = excluded.previous_ticket, seen = excluded.seen",
    );
    let put = put
        .bind(row.name.as_str())
        .bind(integer(row.version))
        .bind(row.membership)
        .bind(labels)
        .bind(row.profile)
        .bind(row.status)
        .bind(ticket(row.ticket))
        .bind(ticket(row.previous_ticket))
        .bind(integer(row.seen.millis()));
    if put.execute(db).await?.rows_affected() == 0 {
        return Err(StoreError::Conflict { what: format!("node {}", row.name) });
    }
    Ok(())
}

async fn enroll(db: &mut SqliteConnection, request: Enrollment) -> Result<(), StoreError> {
    let old = integer(request.at.millis().saturating_sub(Enrollment::PENDING_FOR.as_millis() as u64));
    sqlx::query("DELETE FROM enrollments WHERE reply IS NULL AND at < ?").bind(old).execute(&mut *db).await?;
    let known = sqlx::query("SELECT 1 FROM enrollments WHERE token = ?").bind(request.token.as_str());
    if known.fetch_optional(&mut *db).await?.is_none() {
        let pending: i64 = sqlx::query_scalar("SELECT count(*) FROM enrollments WHERE reply IS NULL").fetch_one(&mut *db).await?;
        if pending >= Enrollment::MOST_PENDING as i64 {
            return Err(Enrollment::full());
        }
    }
    let put = sqlx::query(
        "INSERT INTO enrollments (id, token, node, request, reply, at) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (token) DO UPDATE SET at = enrollments.at WHERE id = excluded.id",
    );
    let put = put
        .bind(&request.id.as_bytes()[..])
        .bind(request.token.as_str())
        .bind(request.node.as_str())
        .bind(request.request)
        .bind(request.reply)
        .bind(integer(request.at.millis()));
    if put.execute(db).await?.rows_affected() == 0 {
        return Err(StoreError::Conflict { what: format!("enrolment token {}", request.token) });
    }
    Ok(())
}
