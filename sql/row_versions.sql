-- Which relations show which version of which row each of their rows is: those whose rows all lie in heaps. Foreign
-- tables show an xmin that never changes, views none. With the numbers of their columns: a column that is dropped and
-- added again has another one, though no row was written.
-- $1 oid[]: the relations.
with recursive tree (root, oid) as (
    select r.oid, r.oid from unnest($1::oid[]) as r (oid)
    union
    select t.root, i.inhrelid from tree t join pg_catalog.pg_inherits i on i.inhparent = t.oid
)
select
    t.root as relation,
    array_agg(c.oid order by c.oid) as members,
    bool_and(c.relkind = 'p' or (c.relkind in ('r', 'm') and coalesce(m.amname = 'heap', false))) as in_heaps,
    -- On disk, with what is stored out of line; unknown before the first VACUUM or ANALYZE.
    (sum(case when c.reltuples > 0 then pg_catalog.pg_table_size(c.oid) end)
        / nullif(sum(case when c.reltuples > 0 then c.reltuples end), 0))::bigint as row_bytes,
    (
        select string_agg(a.attname || ' ' || a.attnum, ',' order by a.attnum)
        from pg_catalog.pg_attribute a
        where a.attrelid = t.root and a.attnum > 0 and not a.attisdropped
    ) as attributes
from tree t
join pg_catalog.pg_class c on c.oid = t.oid
left join pg_catalog.pg_am m on m.oid = c.relam
group by t.root;
