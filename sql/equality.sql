-- The columns of relations whose type brings an equality of its own from outside pg_catalog: a plain `=` would not find
-- it under an empty search_path, or find that of another type. A domain has that of the type at its ground, through
-- whatever other domains.
-- $1 oid[]: the relations.
with recursive domain as (
    select a.attrelid as relation, a.attname as column_name, a.atttypid as type
    from pg_catalog.pg_attribute a
    where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
    union all
    select d.relation, d.column_name, t.typbasetype
    from domain d
    join pg_catalog.pg_type t on t.oid = d.type and t.typtype = 'd'
)
select d.relation, d.column_name::text as name, n.nspname::text as schema, o.oprname::text as operator
from domain d
join pg_catalog.pg_type t on t.oid = d.type and t.typtype <> 'd'
join pg_catalog.pg_opclass oc on oc.opcintype = t.oid and oc.opcdefault
join pg_catalog.pg_am m on m.oid = oc.opcmethod and m.amname = 'btree'
join pg_catalog.pg_amop am
    on am.amopfamily = oc.opcfamily and am.amopstrategy = 3
        and am.amoplefttype = oc.opcintype and am.amoprighttype = oc.opcintype
join pg_catalog.pg_operator o on o.oid = am.amopopr
join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
where n.nspname <> 'pg_catalog';
