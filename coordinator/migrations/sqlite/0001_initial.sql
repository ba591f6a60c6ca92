-- What a coordinator must not forget. Vectors are not in here: they live in memory or in the folder of objects.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One stream per run and per rollout; its events are the truth, the rest of the row is an index over them.
CREATE TABLE streams (
    name    TEXT    NOT NULL PRIMARY KEY, -- kind/name
    kind    TEXT    NOT NULL,
    length  INTEGER NOT NULL,             -- number of events
    live    INTEGER NOT NULL,             -- 1 until the protocol has ended
    summary BLOB    NOT NULL,             -- JSON, for lists
    created INTEGER NOT NULL,             -- milliseconds since the Unix epoch, here and below
    updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    stream  TEXT    NOT NULL REFERENCES streams (name),
    seq     INTEGER NOT NULL,             -- from 0, without gaps
    kind    TEXT    NOT NULL,
    payload BLOB    NOT NULL,             -- JSON
    at      INTEGER NOT NULL,
    PRIMARY KEY (stream, seq)
) STRICT;

-- What each node should be told. Levels, not a queue: one row per node and topic, the newest only.
CREATE TABLE outbox (
    node  TEXT NOT NULL,
    topic TEXT NOT NULL,
    kind  TEXT NOT NULL,
    body  BLOB NOT NULL,                  -- JSON
    PRIMARY KEY (node, topic)
) STRICT;
CREATE INDEX outbox_topic ON outbox (topic);

-- Who drives a stream. The epoch grows at every take-over, and a commit under an older one is refused.
CREATE TABLE leases (
    resource TEXT    NOT NULL PRIMARY KEY,
    holder   TEXT,                        -- NULL: given back
    epoch    INTEGER NOT NULL,
    expires  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    name            TEXT    NOT NULL PRIMARY KEY,
    version         INTEGER NOT NULL,     -- of this row, for optimistic writes
    membership      BLOB    NOT NULL,     -- the authority's statement, JSON
    labels          BLOB    NOT NULL,     -- JSON
    profile         BLOB    NOT NULL,     -- JSON
    status          BLOB,                 -- JSON
    ticket          BLOB,
    previous_ticket BLOB,                 -- still good: the node may never have received the current one
    seen            INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE enrollments (
    id      BLOB    NOT NULL PRIMARY KEY, -- digest of the canonical request
    token   TEXT    NOT NULL UNIQUE,
    node    TEXT    NOT NULL,
    request BLOB    NOT NULL,
    reply   BLOB,
    at      INTEGER NOT NULL
) STRICT;

CREATE TABLE releases (
    name     TEXT    NOT NULL PRIMARY KEY,
    document BLOB    NOT NULL,            -- JSON
    at       INTEGER NOT NULL
) STRICT;

-- A caller's own word for a request, so that asking twice does once.
CREATE TABLE submissions (
    token   TEXT NOT NULL PRIMARY KEY,
    request BLOB NOT NULL,                -- digest of what was asked
    stream  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
