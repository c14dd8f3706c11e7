-- The sequences that feed columns of relations: those of serial and identity columns.
-- $1 oid[]: the relations.
select
    d.refobjid as relation,
    a.attname::text as column_name,
    n.nspname::text as schema,
    s.relname::text as name,
    q.seqincrement < 0 as descending
from pg_catalog.pg_depend d
join pg_catalog.pg_class s on s.oid = d.objid and s.relkind = 'S'
join pg_catalog.pg_namespace n on n.oid = s.relnamespace
join pg_catalog.pg_sequence q on q.seqrelid = s.oid
join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    and d.deptype in ('a', 'i')
    and d.refobjid = any ($1::oid[])
order by 1, 2, 3, 4;
