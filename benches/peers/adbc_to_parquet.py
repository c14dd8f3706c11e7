"""One query of PostgreSQL to a Parquet file, by ADBC and Arrow: what `benches/` compares an export with.

usage: adbc_to_parquet.py DATABASE-URL QUERY FILE
"""

import sys

import pyarrow.parquet
from adbc_driver_postgresql import dbapi

url, query, path = sys.argv[1:]
with dbapi.connect(url) as connection, connection.cursor() as cursor:
    cursor.execute(query)
    batches = cursor.fetch_record_batch()
    with pyarrow.parquet.ParquetWriter(path, batches.schema, compression="zstd", compression_level=3) as writer:
        for batch in batches:
            writer.write_batch(batch)
