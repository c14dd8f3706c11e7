-- Types of a user's own, on both sides.
CREATE SCHEMA "we ird";
CREATE TYPE mood AS ENUM ('sad', ' ', 'a,b', 'q"uo''te', E'back\\slash', E'new\nline', 'NULL', 'ä', '\.', '\N');
CREATE TYPE pair AS (a int, b text);
CREATE TYPE nested AS (p pair, m mood, t text[], "q ""x""" numeric, at timestamptz);
CREATE TYPE one AS ("only" text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN more_positive AS positive CHECK (VALUE > 10);
CREATE DOMAIN words AS text[] CHECK (array_ndims(VALUE) IS DISTINCT FROM 2);
CREATE DOMAIN sane_pair AS pair CHECK ((VALUE).a IS DISTINCT FROM 13);
CREATE TYPE float_range AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TYPE mood_range AS RANGE (subtype = mood);
CREATE TABLE "Odd, ""table""" (id int, note text, dropped int, last bytea);
ALTER TABLE "Odd, ""table""" DROP COLUMN dropped;
CREATE FUNCTION "odd name"() RETURNS int LANGUAGE sql AS 'SELECT 1';
