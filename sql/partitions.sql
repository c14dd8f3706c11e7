-- Partitioned tables, those of the given relations and those below them, each with its partitions; one row with NULLs
-- for a table that has none.
-- $1 oid[]: the relations.
-- `key_column`: the column that it is partitioned by, if that is one column and no expression.
-- `access_method` and `tablespace`: those that the parent names for partitions that are yet to be made.
select
    p.partrelid as parent,
    pn.nspname::text as parent_schema,
    pc.relname::text as parent_name,
    p.partstrat::text as strategy,
    (
        select a.attname::text
        from pg_catalog.pg_attribute a
        where p.partnatts = 1 and a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
    ) as key_column,
    pg_catalog.pg_get_partkeydef(p.partrelid) as key_definition,
    m.amname::text as access_method,
    s.spcname::text as tablespace,
    c.oid as partition,
    n.nspname::text as schema,
    c.relname::text as name,
    coalesce(c.relkind = 'p', false) as is_partitioned,
    pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bound
from pg_catalog.pg_partitioned_table p
join pg_catalog.pg_class pc on pc.oid = p.partrelid
join pg_catalog.pg_namespace pn on pn.oid = pc.relnamespace
left join pg_catalog.pg_am m on m.oid = pc.relam
left join pg_catalog.pg_tablespace s on s.oid = pc.reltablespace
left join pg_catalog.pg_inherits i on i.inhparent = p.partrelid
left join pg_catalog.pg_class c on c.oid = i.inhrelid
left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.partrelid in (
    select tree.relid
    from unnest($1::oid[]) as root (oid)
    cross join lateral pg_catalog.pg_partition_tree(root.oid) as tree
);
