"""The rows of one table between two times to Parquet files in a folder, by dlt: what `benches/` compares an export with.

usage: dlt_to_parquet.py DATABASE-URL TABLE TIME-COLUMN FROM UNTIL FOLDER
"""

import datetime
import sys

import dlt
from dlt.sources.sql_database import sql_table

url, table, time_column, start, end, folder = sys.argv[1:]


def window(query, selected):
    time = selected.c[time_column]
    return query.where(time >= datetime.datetime.fromisoformat(start), time < datetime.datetime.fromisoformat(end))


rows = sql_table(url, table=table, backend="pyarrow", chunk_size=50_000, query_adapter_callback=window)
pipeline = dlt.pipeline(
    "bench",
    pipelines_dir=f"{folder}/state",
    dataset_name="day",
    destination=dlt.destinations.filesystem(f"file://{folder}/out"),
)
pipeline.run(rows, loader_file_format="parquet").raise_on_failed_jobs()
