-- The columns of relations whose values are of an enumeration or a composite type, or arrays of it, or in a domain over
-- it: that type, its labels, its attributes with their types.
-- $1 oid[]: the relations.
with recursive ground as (
    select a.attrelid as relation, a.attname as column_name, a.atttypid as type
    from pg_catalog.pg_attribute a
    where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
    union all
    select g.relation, g.column_name, case when t.typtype = 'd' then t.typbasetype else t.typelem end
    from ground g
    join pg_catalog.pg_type t on t.oid = g.type
    where t.typtype = 'd' or (t.typtype = 'b' and t.typelem <> 0 and t.typlen = -1)
)
select
    g.relation,
    g.column_name::text as column_name,
    n.nspname::text as schema,
    t.typname::text as name,
    array(
        select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = t.oid order by e.enumsortorder
    ) as labels,
    made.attributes,
    made.attribute_schemas,
    made.attribute_types,
    made.attribute_modifiers
from ground g
join pg_catalog.pg_type t on t.oid = g.type
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
cross join lateral (
    select
        coalesce(array_agg(f.attname::text order by f.attnum), '{}') as attributes,
        coalesce(array_agg(fn.nspname::text order by f.attnum), '{}') as attribute_schemas,
        coalesce(array_agg(ft.typname::text order by f.attnum), '{}') as attribute_types,
        coalesce(array_agg(f.atttypmod order by f.attnum), '{}') as attribute_modifiers
    from pg_catalog.pg_attribute f
    join pg_catalog.pg_type ft on ft.oid = f.atttypid
    join pg_catalog.pg_namespace fn on fn.oid = ft.typnamespace
    where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped
) as made
where t.typtype in ('e', 'c');
