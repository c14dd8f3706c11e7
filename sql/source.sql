-- Who and when the source is, asked in autocommit.
select
    clock_timestamp() as now,
    (select system_identifier::text from pg_catalog.pg_control_system()) as system_identifier,
    (select timeline_id from pg_catalog.pg_control_checkpoint()) as timeline,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    pg_catalog.current_setting('server_version') as server_version;
