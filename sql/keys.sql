-- The keys of relations: complete, plain, valid unique indexes over columns that are never NULL. The primary key
-- comes first, then the narrowest.
-- $1 oid[]: the relations.
select
    i.indrelid as relation,
    array(
        select a.attname::text
        from unnest(i.indkey) with ordinality as k (attnum, place)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where k.place <= i.indnkeyatts
        order by k.place
    ) as columns
from pg_catalog.pg_index i
where i.indrelid = any ($1::oid[])
    and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
    and not exists (
        select
        from unnest(i.indkey) with ordinality as k (attnum, place)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where k.place <= i.indnkeyatts and not a.attnotnull
    )
order by i.indrelid, i.indisprimary desc, i.indnkeyatts, i.indexrelid;
