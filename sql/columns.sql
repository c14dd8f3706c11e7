-- The columns of relations, in order. From release 18 on a NOT NULL may be NOT VALID: such a column may hold NULLs.
-- $1 oid[]: the relations.
select
    a.attrelid as relation,
    a.attname::text as name,
    tn.nspname::text as type_schema,
    t.typname::text as type_name,
    a.atttypmod as typmod,
    pg_catalog.format_type(a.atttypid, a.atttypmod) as type_text,
    -- What a domain is over.
    bn.nspname::text as base_schema,
    b.typname::text as base_name,
    t.typtypmod as base_typmod,
    -- From release 18 on a NOT NULL need not have been checked yet.
    a.attnotnull and not exists (
        select from pg_catalog.pg_constraint v
        where v.conrelid = a.attrelid and v.contype = 'n' and v.conkey = array[a.attnum] and not v.convalidated
    ) as not_null,
    a.attgenerated <> '' as generated,
    a.attidentity = 'a' as identity_always,
    a.atthasdef or a.attidentity <> '' as has_default
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid
join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
left join pg_catalog.pg_type b on t.typtype = 'd' and b.oid = t.typbasetype
left join pg_catalog.pg_namespace bn on bn.oid = b.typnamespace
where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum;
