-- What tables were restored from. $1 text: the feed's id.
select
    r.table_name, r.table_oid, r.dump_key, r.taken_at, r.snapshot, r.lsn, r.system_identifier, r.timeline, r.from_standby
from pgslice.restored r
where r.feed_id = $1
order by r.table_name;
