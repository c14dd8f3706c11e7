-- The replica's own record of what it holds, made on the first catchup. Rows change only together with the data they
-- speak of, in one transaction.
create schema if not exists pgslice;
create table if not exists pgslice.ledger (
    feed_id text not null,
    day date not null,
    table_name text not null,
    revision integer not null,
    state text not null,
    manifest_sha256 text not null,
    rows_digest text not null,
    format text not null default 'text',
    columns text not null default '',
    time_column text not null default '',
    rows bigint not null,
    snapshot text not null,
    lsn text not null,
    system_identifier text not null,
    timeline bigint not null,
    exported_at timestamptz not null,
    table_oid oid not null,
    origin text not null,
    keeps_extra_rows boolean not null,
    applied_at timestamptz not null default now(),
    primary key (feed_id, day, table_name)
);
comment on table pgslice.ledger is
    'What this database holds of a pgslice feed, per day and table. Written in the same transaction as the rows.';
comment on column pgslice.ledger.origin is
    'loaded: by COPY into an empty window; merged: by key into rows that were there; adopted: found equal.';
comment on column pgslice.ledger.columns is
    'The names of the slice''s columns in their order, and of its key, and of columns that the replica lacked, as JSON; a SHA-256, or nothing, where an older version wrote the row.';
comment on column pgslice.ledger.time_column is
    'By which column its window was told, and of which kind that is; empty for a reference table.';
comment on column pgslice.ledger.keeps_extra_rows is
    'The window held rows that the feed does not know when it was first met: later revisions delete nothing.';
create table if not exists pgslice.feed (
    dataset text primary key,
    feed_id text not null,
    sequence bigint not null,
    published_at timestamptz,
    caught_up_at timestamptz,
    settled text
);
comment on table pgslice.feed is 'The newest head of each feed that was seen.';
comment on column pgslice.feed.published_at is 'Of the head of the last catchup that left nothing pending.';
comment on column pgslice.feed.caught_up_at is 'When that catchup ended.';
comment on column pgslice.feed.settled is
    'What the next catchup is spared a look by: the head''s version, and a fingerprint of what that catchup rested on, as JSON; null while something may be pending.';
