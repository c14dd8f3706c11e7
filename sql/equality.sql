-- The columns of relations whose type brings an equality of its own from outside pg_catalog: a plain `=` would not find
-- it under an empty search_path, or find that of another type.
-- $1 oid[]: the relations.
select a.attrelid as relation, a.attname::text as name, n.nspname::text as schema, o.oprname::text as operator
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid
join pg_catalog.pg_opclass oc on oc.opcintype = coalesce(nullif(t.typbasetype, 0), t.oid) and oc.opcdefault
join pg_catalog.pg_am m on m.oid = oc.opcmethod and m.amname = 'btree'
join pg_catalog.pg_amop am
    on am.amopfamily = oc.opcfamily and am.amopstrategy = 3
        and am.amoplefttype = oc.opcintype and am.amoprighttype = oc.opcintype
join pg_catalog.pg_operator o on o.oid = am.amopopr
join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped and n.nspname <> 'pg_catalog';
