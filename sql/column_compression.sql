-- The columns of a table that were given a compression of their own. Releases before 14 know none.
-- $1 oid: the table.
select
    a.attname::text as column_name,
    case compression.letter when 'l' then 'lz4' else 'pglz' end as method
from pg_catalog.pg_attribute a
cross join lateral (select pg_catalog.to_jsonb(a) ->> 'attcompression' as letter) as compression
where a.attrelid = $1::pg_catalog.oid and a.attnum > 0 and not a.attisdropped and compression.letter in ('l', 'p');
