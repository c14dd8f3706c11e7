-- Who and when the source is, and as a standby how far it has come. Asked in autocommit.
-- The timeline: a server that was just promoted has its new one in the names of its log files at once, in its control
-- file only after the next checkpoint. A standby does not name log files; it is on the newest timeline that it knows
-- of (what its receiver says is shown to pg_read_all_stats only).
select
    clock_timestamp() as now,
    (select system_identifier::text from pg_catalog.pg_control_system()) as system_identifier,
    case when pg_catalog.pg_is_in_recovery()
        then greatest(
            (select timeline_id from pg_catalog.pg_control_checkpoint()),
            (select min_recovery_end_timeline from pg_catalog.pg_control_recovery()),
            (select received_tli from pg_catalog.pg_stat_wal_receiver)
        )
        else ('x' || left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::integer
    end as timeline,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    pg_catalog.pg_last_wal_receive_lsn()::text as received,
    pg_catalog.pg_last_wal_replay_lsn()::text as replayed,
    coalesce(pg_catalog.pg_last_wal_receive_lsn() > pg_catalog.pg_last_wal_replay_lsn(), false) as unreplayed,
    pg_catalog.pg_last_xact_replay_timestamp() as last_commit,
    -- When the primary said that its log ended where all of it is replayed by now; shown to pg_read_all_stats only.
    (
        select r.latest_end_time from pg_catalog.pg_stat_wal_receiver r
        where r.latest_end_lsn <= pg_catalog.pg_last_wal_replay_lsn()
    ) as replayed_all_of,
    current_user::text as username,
    pg_catalog.current_setting('server_version') as server_version,
    pg_catalog.current_setting('server_version_num')::integer as server_version_num;
