-- Exports this transaction's snapshot and says where in the write-ahead log it stands.
-- Runs in a REPEATABLE READ transaction whose tables are locked already.
select
    pg_catalog.pg_export_snapshot() as id,
    pg_catalog.pg_current_snapshot()::text as snapshot,
    (case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
          else pg_catalog.pg_current_wal_insert_lsn() end)::text as lsn,
    clock_timestamp() as exported_at;
