-- Keeps what a table was restored from. $1 text: feed_id; $2 text: table_name; $3 oid; $4 text: dump_key or null;
-- $5 timestamptz: taken_at; $6 to $9: snapshot, lsn, system_identifier, timeline, or null; $10 boolean: from_standby.
insert into pgslice.restored as r (
    feed_id, table_name, table_oid, dump_key, taken_at, snapshot, lsn, system_identifier, timeline, from_standby
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (feed_id, table_name) do update set
    table_oid = excluded.table_oid,
    dump_key = excluded.dump_key,
    taken_at = excluded.taken_at,
    snapshot = excluded.snapshot,
    lsn = excluded.lsn,
    system_identifier = excluded.system_identifier,
    timeline = excluded.timeline,
    from_standby = excluded.from_standby,
    told_at = pg_catalog.now();
