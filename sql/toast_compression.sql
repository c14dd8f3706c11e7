-- Long values are compressed by lz4 where nobody chose how: that takes the server a fraction of the time of its built-in
-- default, for about the same size. What a file, a database, a role or the connection says stands, and so does the
-- compression that a column was given. Releases before 14, and servers built without lz4, do not know it.
select pg_catalog.set_config(name, 'lz4', false)
from pg_catalog.pg_settings
where name = 'default_toast_compression' and source = 'default' and 'lz4' = any (enumvals);
