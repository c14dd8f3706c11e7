-- Records a slice. Parameters, all as text: feed_id, day, table_name, revision, state, manifest_sha256, rows_digest,
-- rows, snapshot, lsn, system_identifier, timeline, exported_at, table_oid, origin, keeps_extra_rows, format, columns,
-- time_column.
insert into pgslice.ledger as l (
    feed_id, day, table_name, revision, state, manifest_sha256, rows_digest, rows,
    snapshot, lsn, system_identifier, timeline, exported_at, table_oid, origin, keeps_extra_rows, format,
    columns, time_column
)
values (
    $1, $2::date, $3, $4::integer, $5, $6, $7, $8::bigint,
    $9, $10, $11, $12::bigint, $13::timestamptz, $14::oid, $15, $16::boolean, $17,
    $18, $19
)
on conflict (feed_id, day, table_name) do update set
    revision = excluded.revision,
    state = excluded.state,
    manifest_sha256 = excluded.manifest_sha256,
    rows_digest = excluded.rows_digest,
    format = excluded.format,
    columns = excluded.columns,
    time_column = excluded.time_column,
    rows = excluded.rows,
    snapshot = excluded.snapshot,
    lsn = excluded.lsn,
    system_identifier = excluded.system_identifier,
    timeline = excluded.timeline,
    exported_at = excluded.exported_at,
    table_oid = excluded.table_oid,
    origin = excluded.origin,
    keeps_extra_rows = excluded.keeps_extra_rows,
    applied_at = pg_catalog.now();
