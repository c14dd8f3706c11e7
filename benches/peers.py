"""The programs that pgslice is compared with, as people use them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from clusters import ROOT, Bucket, Cluster
from data import Window
from measuring import Command, Missing, Pipeline

ZSTD = Command(("zstd", "-q", "-3"))
UNZSTD = ("zstd", "-q", "-dc")


@dataclass(frozen=True)
class Peers:
    """Where scripts/install-bench put what comes from PyPI; `None` where it could not."""

    environment: Optional[Path]

    @staticmethod
    def find() -> "Peers":
        found = subprocess.run([ROOT / "scripts/find-bench"], capture_output=True, text=True)
        return Peers(Path(found.stdout.strip()) if found.returncode == 0 else None)

    def program(self, name: str) -> str:
        found = list(self.environment.glob(name)) if self.environment else []
        if not found:
            raise Missing("not installed, scripts/install-bench said why")
        return str(found[0])

    def python(self, script: str, *arguments: str) -> Command:
        path = ROOT / "benches/peers" / script
        return Command(
            (self.program("bin/python"), "-I", str(path), *arguments), {"RUNTIME__DLTHUB_TELEMETRY": "false"}
        )

    def versions(self) -> dict:
        """Of the packages from PyPI that are compared, by name."""
        if not self.environment:
            return {}
        wanted = ("awscli", "sling-linux-amd64", "adbc-driver-postgresql", "pyarrow", "dlt")
        asked = f"import importlib.metadata as m; print(*(m.version(n) for n in {wanted}))"
        told = subprocess.run([self.program("bin/python"), "-c", asked], capture_output=True, text=True)
        return dict(zip(wanted, told.stdout.split()))


def copy_out(source: Cluster, query: str, compress: Command, target: Path) -> Pipeline:
    """`psql … | zstd > target`"""
    return Pipeline((source.psql("datanommer", f"copy ({query}) to stdout"), compress), target=target)


def copy_to_nothing(source: Cluster, query: str) -> Pipeline:
    """What the server alone needs."""
    return Pipeline((source.psql("datanommer", f"copy ({query}) to '/dev/null'"),))


def copy_to_bucket(peers: Peers, source: Cluster, query: str, bucket: Bucket) -> Pipeline:
    """`psql … | zstd | aws s3 cp -`"""
    send = (peers.program("bin/aws"), "s3", "cp", "-", "s3://bench/day.copy.zst", "--endpoint-url", bucket.endpoint)
    return Pipeline((source.psql("datanommer", f"copy ({query}) to stdout"), ZSTD, Command(send, bucket.environment)))


def copy_in(replica: Cluster, database: str, slice: dict, part: Path) -> Pipeline:
    r"""`zstd -dc part | psql -c '\copy …'`"""
    columns = ", ".join(f'"{column["name"]}"' for column in slice["columns"])
    load = replica.psql(database, f'\\copy "{slice["table"]}" ({columns}) from stdin')
    return Pipeline((Command((*UNZSTD, str(part))), load))


def copy_in_new(replica: Cluster, database: str, slice: dict, part: Path) -> Pipeline:
    """The same for a table that may hold some of the rows: by a temporary table."""
    table = slice["table"]
    load = replica.psql(
        database,
        f'create temporary table incoming (like "{table}")',
        "\\copy incoming from stdin",
        f'insert into "{table}" select * from incoming on conflict do nothing',
    )
    return Pipeline((Command((*UNZSTD, str(part))), load))


def sling(peers: Peers, source: Cluster, window: Window, target: Path) -> Pipeline:
    environment = {"SOURCE": source.url("datanommer") + "&sslmode=disable", "SLING_DISABLE_TELEMETRY": "TRUE"}
    program = peers.program("lib/python*/site-packages/sling_linux_amd64/bin/sling-linux-amd64")
    arguments = ("run", "--src-conn", "SOURCE", "--src-stream", window.query, "--tgt-object", f"file://{target}")
    return Pipeline((Command((program, *arguments), environment),))


def adbc(peers: Peers, source: Cluster, window: Window, target: Path) -> Pipeline:
    return Pipeline((peers.python("adbc_to_parquet.py", source.url("datanommer"), window.query, str(target)),))


def dlt(peers: Peers, source: Cluster, window: Window, folder: Path) -> Pipeline:
    url = f"postgresql+psycopg2://postgres@/datanommer?host={source.folder}"
    arguments = (url, window.table, window.column, window.start, window.end, str(folder))
    return Pipeline((peers.python("dlt_to_parquet.py", *arguments),))
