-- The unique indexes of relations that are complete, plain and valid; `never_null` says which are over columns that are
-- never NULL: keys. The primary key comes first, then the narrowest.
-- $1 oid[]: the relations.
-- Per column of a key: `schemas` and `operators` name the equality by which the index tells its values apart (strategy 3
-- of its operator class); `collations` the collation that it does so under, where that is not the column's own;
-- `loose` whether two values can be equal without being the same, such as 1.0 and 1.00, or letters of another case
-- (support function 4 says so from release 13 on).
-- `foreign_keys`: those that point at the index, each as `child drop constraint name`.
select
    i.indrelid as relation,
    x.relname::text as name,
    i.indisprimary as is_primary,
    k.never_null,
    k.columns,
    k.schemas,
    k.operators,
    k.collation_schemas,
    k.collations,
    k.loose,
    array(
        select format('%I.%I drop constraint %I', n.nspname, c.relname, f.conname)
        from pg_catalog.pg_constraint f
        join pg_catalog.pg_class c on c.oid = f.conrelid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where f.contype = 'f' and f.conindid = i.indexrelid and f.conparentid = 0
        order by f.oid
    ) as foreign_keys
from pg_catalog.pg_index i
join pg_catalog.pg_class x on x.oid = i.indexrelid
join pg_catalog.pg_am m on m.oid = x.relam and m.amname = 'btree'
cross join lateral (
    select
        array_agg(a.attname::text order by p.place) as columns,
        array_agg(n.nspname::text order by p.place) as schemas,
        array_agg(o.oprname::text order by p.place) as operators,
        array_agg(case when c.oid <> a.attcollation then cn.nspname::text end order by p.place) as collation_schemas,
        array_agg(case when c.oid <> a.attcollation then c.collname::text end order by p.place) as collations,
        array_agg(
            case f.amproc::oid
                when 'pg_catalog.btequalimage(oid)'::pg_catalog.regprocedure::oid then false
                when 'pg_catalog.btvarstrequalimage(oid)'::pg_catalog.regprocedure::oid
                    then not coalesce(c.collisdeterministic, true) or oc.opcintype = 'pg_catalog.bpchar'::pg_catalog.regtype
                else true
            end
            order by p.place
        ) as loose,
        bool_and(
            a.attnotnull
            -- From release 18 on a NOT NULL need not have been checked yet.
            and not exists (
                select from pg_catalog.pg_constraint v
                where v.conrelid = a.attrelid and v.contype = 'n' and v.conkey = array[a.attnum] and not v.convalidated
            )
        ) as never_null
    from unnest(i.indkey, i.indclass, i.indcollation) with ordinality as p (attnum, opclass, collation_oid, place)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = p.attnum
    join pg_catalog.pg_opclass oc on oc.oid = p.opclass
    join pg_catalog.pg_amop am
        on am.amopfamily = oc.opcfamily and am.amopstrategy = 3
            and am.amoplefttype = oc.opcintype and am.amoprighttype = oc.opcintype
    join pg_catalog.pg_operator o on o.oid = am.amopopr
    join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
    left join pg_catalog.pg_collation c on c.oid = p.collation_oid
    left join pg_catalog.pg_namespace cn on cn.oid = c.collnamespace
    left join pg_catalog.pg_amproc f
        on f.amprocfamily = oc.opcfamily and f.amprocnum = 4
            and f.amproclefttype = oc.opcintype and f.amprocrighttype = oc.opcintype
    where p.place <= i.indnkeyatts
) as k
where i.indrelid = any ($1::oid[])
    and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
    and cardinality(k.columns) = i.indnkeyatts
order by i.indrelid, i.indisprimary desc, i.indnkeyatts, i.indexrelid;
