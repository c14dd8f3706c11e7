-- The columns of relations, in order.
-- $1 oid[]: the relations.
select
    a.attrelid as relation,
    a.attname::text as name,
    tn.nspname::text as type_schema,
    t.typname::text as type_name,
    a.atttypmod as typmod,
    a.attnotnull as not_null,
    a.attgenerated <> '' as generated,
    a.attidentity = 'a' as identity_always,
    a.atthasdef or a.attidentity <> '' as has_default
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid
join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum;
