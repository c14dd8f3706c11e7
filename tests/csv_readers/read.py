"""Loads parts in csv format with DuckDB and pandas, and prints what they see as JSON: usage: read.py FILE.csv.zst…"""

import json
import sys

import duckdb
import pandas

files = sys.argv[1:]

# Nothing is said of the columns: names, types and what is NULL are found by DuckDB itself.
guessed = duckdb.sql("select * from read_csv(?, header = true)", params=[files])
guessed_rows = duckdb.sql("select count(*) from read_csv(?, header = true)", params=[files]).fetchall()[0][0]

# As docs/format.md says: an empty field is NULL, an empty field in quotes is an empty text.
exact = duckdb.sql(
    "select * from read_csv(?, header = true, all_varchar = true, nullstr = '', allow_quoted_nulls = false)",
    params=[files],
)

# As docs/format.md says: in a slice of one column an empty line is a row.
frame = pandas.concat(
    pandas.read_csv(file, dtype=str, keep_default_na=False, skip_blank_lines=False) for file in files
)

json.dump(
    {
        "versions": {"duckdb": duckdb.__version__, "pandas": pandas.__version__},
        "types": dict(zip(guessed.columns, map(str, guessed.types))),
        "guessed_rows": guessed_rows,
        "columns": exact.columns,
        "duckdb": exact.fetchall(),
        "pandas_columns": list(frame.columns),
        "pandas": frame.values.tolist(),
    },
    sys.stdout,
)
