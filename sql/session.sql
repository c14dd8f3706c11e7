-- The settings that every session of pgslice starts with, whatever the server, the database or the role has as its
-- defaults. Sent as one string after start-up, so that they stand above ALTER ROLE and ALTER DATABASE.

-- First, for a hostile default must not end the rest of this.
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET lock_timeout = '10s';

-- What values look like as text.
SET client_encoding = 'UTF8';
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
-- As pg_dump does; every value of it reads back the same under any IntervalStyle, signs included.
SET IntervalStyle = 'postgres';
-- The shortest exact text from PostgreSQL 12 on (any value above 0), and enough digits before.
SET extra_float_digits = 3;
SET bytea_output = 'hex';
SET lc_monetary = 'C';
SET xmloption = 'content';
SET quote_all_identifiers = off;

-- How text is read.
SET standard_conforming_strings = on;
SET array_nulls = on;
SET transform_null_equals = off;

-- Which rows are seen. Without row security a role that is limited by a policy gets an error instead of a part.
SET search_path = '';
SET row_security = off;
SET synchronize_seqscans = off;

-- Compiling takes longer than what is asked here.
SET jit = off;

-- Transactions say what they are; where one does not, it is this.
SET default_transaction_isolation = 'read committed';
SET default_transaction_deferrable = off;

-- Notices and warnings can carry row values, and nobody reads them here.
SET client_min_messages = 'error';
SET exit_on_error = off;

-- Settings that not every version has: idle_session_timeout from 14, transaction_timeout from 17.
SELECT pg_catalog.set_config(name, '0', false)
FROM pg_catalog.pg_settings
WHERE name IN ('idle_session_timeout', 'transaction_timeout');
