-- What a server and its user can do, asked in autocommit.
select
    current_user::text as username,
    pg_catalog.current_database()::text as database,
    pg_catalog.current_setting('server_version') as server_version,
    pg_catalog.current_setting('server_version_num')::integer as server_version_num,
    pg_catalog.current_setting('server_encoding') as encoding,
    pg_catalog.current_setting('transaction_read_only')::boolean as read_only,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    pg_catalog.pg_has_role('pg_read_all_stats', 'usage') as sees_sessions,
    pg_catalog.current_setting('track_activities')::boolean as tracks_activities,
    pg_catalog.current_setting('max_locks_per_transaction')::int8
        * (pg_catalog.current_setting('max_connections')::int8
           + pg_catalog.current_setting('max_prepared_transactions')::int8) as lock_slots,
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'temporary') as temporary,
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create') as "create",
    pg_catalog.to_regnamespace('pgslice') is not null as has_schema,
    coalesce(pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('pgslice')::oid, 'usage, create'), false)
        as uses_schema;
