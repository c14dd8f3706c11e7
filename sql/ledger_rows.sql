-- The ledger of a feed, also one that an older version made with fewer columns. $1 text: the feed's id.
select
    l.day::text as day, l.table_name, l.revision, l.state, l.manifest_sha256, l.rows_digest,
    coalesce(pg_catalog.to_jsonb(l) ->> 'format', 'text') as format,
    coalesce(pg_catalog.to_jsonb(l) ->> 'columns', '') as columns,
    coalesce(pg_catalog.to_jsonb(l) ->> 'time_column', '') as time_column, l.rows,
    l.snapshot, l.lsn, l.system_identifier, l.timeline, l.exported_at, l.table_oid, l.keeps_extra_rows
from pgslice.ledger l
where l.feed_id = $1
order by l.day, l.table_name;
