-- What the values of columns are made of: the column's own type, what a domain is over, the elements of an array, the
-- fields of a composite type, the bounds of a range, the ranges of a multirange; and what those are made of in turn.
-- $1 oid[]: the relations.
with recursive part as (
    select a.attrelid as relation, a.attname as column_name, a.attnum as position, 'itself' as role, a.atttypid as type
    from pg_catalog.pg_attribute a
    where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
    union
    select p.relation, p.column_name, p.position, component.role, component.type
    from part p
    join pg_catalog.pg_type t on t.oid = p.type
    cross join lateral (
        select 'base' as role, t.typbasetype as type where t.typtype = 'd'
        union all
        select 'element', t.typelem where t.typelem <> 0 and t.typlen = -1
        union all
        select 'field', f.atttypid
        from pg_catalog.pg_attribute f
        where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped
        union all
        select 'bound', r.rngsubtype from pg_catalog.pg_range r where t.typtype = 'r' and r.rngtypid = t.oid
        union all
        -- PostgreSQL 13 has no such column, and no multiranges.
        select 'range', r.rngtypid
        from pg_catalog.pg_range r
        where t.typtype = 'm' and (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid = t.oid
    ) component
)
select
    p.relation,
    p.column_name::text as column_name,
    p.role,
    n.nspname::text as type_schema,
    t.typname::text as type_name,
    t.typtype = 'p' as pseudo,
    t.typsend <> 0 and t.typreceive <> 0 as has_binary_form,
    -- Below it numbers are the same in every database of every version: FirstGenbkiObjectId.
    t.oid < 10000 as numbered_everywhere
from part p
join pg_catalog.pg_type t on t.oid = p.type
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
order by p.relation, p.position, p.role <> 'itself', p.role, n.nspname, t.typname;
