-- Transactions of this database prepared after a window's start that could still add rows to it.
-- Asked after open_transactions.sql: a transaction that is prepared in between is seen by one of the two.
-- $1 timestamptz: the window's start.
select p.gid, p.prepared
from pg_catalog.pg_prepared_xacts p
where p.database = pg_catalog.current_database() and p.prepared >= $1::timestamptz
order by p.prepared;
