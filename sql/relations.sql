-- The relations of the given names, with the tables that inherit from them and are not partitions.
-- $1 text[]: schemas; $2 text[]: names, of the same length.
select
    c.oid,
    n.nspname::text as schema,
    c.relname::text as name,
    c.relkind::text as kind,
    array(
        select (hn.nspname || '.' || h.relname)::text
        from pg_catalog.pg_inherits i
        join pg_catalog.pg_class h on h.oid = i.inhrelid
        join pg_catalog.pg_namespace hn on hn.oid = h.relnamespace
        where i.inhparent = c.oid and not h.relispartition
        order by 1
    ) as children,
    array(
        select distinct hn.nspname::text
        from pg_catalog.pg_inherits i
        join pg_catalog.pg_class h on h.oid = i.inhrelid
        join pg_catalog.pg_namespace hn on hn.oid = h.relnamespace
        where i.inhparent = c.oid and not h.relispartition
    ) as child_schemas
from unnest($1::text[], $2::text[]) as wanted (schema, name)
join pg_catalog.pg_namespace n on n.nspname = wanted.schema
join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = wanted.name
where c.relkind in ('r', 'p', 'v', 'm', 'f');
