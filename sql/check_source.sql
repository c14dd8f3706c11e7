-- What reading tables costs and leaves out.
-- $1 oid[]: the relations.
-- `indexed`: the columns that a complete index starts with, or that a table is partitioned by; `locks`: the relations and
-- indexes that a session locks to read all of it.
select
    c.oid as relation,
    c.relpersistence = 'u' as unlogged,
    array(
        select a.attname::text
        from pg_catalog.pg_index i
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = c.oid and i.indisvalid and i.indpred is null
        union
        select a.attname::text
        from pg_catalog.pg_partitioned_table p
        join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
        where p.partrelid = c.oid and p.partstrat = 'r'
    ) as indexed,
    1 + (select count(*) from pg_catalog.pg_index i where i.indrelid = c.oid)
      + (
            select count(*) + coalesce(sum((select count(*) from pg_catalog.pg_index i where i.indrelid = tree.relid)), 0)
            from pg_catalog.pg_partition_tree(c.oid) as tree
            where tree.relid <> c.oid
        )::int8 as locks
from pg_catalog.pg_class c
where c.oid = any ($1::oid[]);
