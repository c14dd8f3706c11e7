-- What the replica's tables were restored from, made when that is said for the first time. A row speaks of the table
-- with its oid: one that was made anew since was not restored.
create table if not exists pgslice.restored (
    feed_id text not null,
    table_name text not null,
    table_oid oid not null,
    dump_key text,
    taken_at timestamptz not null,
    snapshot text,
    lsn text,
    system_identifier text,
    timeline bigint,
    from_standby boolean not null,
    told_at timestamptz not null default now(),
    primary key (feed_id, table_name)
);
comment on table pgslice.restored is
    'The full dump that each table was restored from before it followed a pgslice feed.';
comment on column pgslice.restored.dump_key is
    'The name of the dump in the feed; null for one that the feed did not know.';
comment on column pgslice.restored.snapshot is
    'The snapshot that the dump shows, with its lsn, system_identifier and timeline; null where only taken_at is known.';
