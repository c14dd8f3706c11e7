#!/usr/bin/env python3
"""Runs pgslice and its peers side by side, and writes what it took: see benches/README.md.

usage: run.py PGSLICE STRICT-S3
"""

import dataclasses
import datetime
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

import beside
import cost
import data
import exporting
import loading
import memory
import report
from bench import Bench, Settings
from clusters import ROOT, SETTINGS, THROWAWAY_SETTINGS, Cluster
from peers import Peers

GROUPS = {
    "export": exporting.export,
    "tables": exporting.tables,
    "narrow": exporting.narrow,
    "wide": exporting.wide,
    "bucket": exporting.bucket,
    "load": loading.load,
    "days": loading.days,
    "revised": loading.revised,
    "archive": loading.archive,
    "memory": memory.memory,
    "history": cost.history,
    "prune": cost.prune,
    "idle": cost.idle,
    "beside": beside.beside,
}
RESULTS = ROOT / "benches/results"
DOCUMENT = ROOT / "docs/performance.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


def main() -> int:
    pgslice, strict_s3 = (Path(argument).resolve() for argument in sys.argv[1:])
    settings = Settings.read()
    if unknown := settings.only - set(GROUPS):
        sys.exit(f"No such group: {' '.join(unknown)}. There are: {' '.join(GROUPS)}")
    stand_alone()
    # As Ctrl-C does, so that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with ExitStack() as stack:
        bench = set_up(stack, settings, pgslice, strict_s3)
        print(f"Filling {settings.days} days of {bench.rows_a_day:,} messages …", flush=True)
        data.fill_days(bench.source, settings.scale, settings.days)
        sections = {name: run_group(bench, name) for name in GROUPS if name in (settings.only or GROUPS)}
        chapter = report.markdown(circumstances(bench, time.monotonic() - began), list(sections.values()))
    write(settings, chapter, sections)
    failures = [failure for section in sections.values() for failure in section.failures]
    for failure in failures:
        print(f"Failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


def stand_alone():
    """Nothing of the caller's own databases and accounts takes part, and nothing leaves this machine."""
    for name in [name for name in os.environ if name.startswith(("PG", "AWS_")) and name != "PGSLICE_TEST_PG_BIN"]:
        del os.environ[name]
    # The programs themselves: Debian's psql in /usr/bin is a script that looks for them.
    found = subprocess.run([ROOT / "scripts/find-postgresql"], capture_output=True, text=True, check=True)
    os.environ["PATH"] = f"{found.stdout.strip()}:{os.environ['PATH']}"
    os.environ.update(NO_PROXY="127.0.0.1", no_proxy="127.0.0.1", LC_ALL="C.UTF-8")


def set_up(stack: ExitStack, settings: Settings, pgslice: Path, strict_s3: Path) -> Bench:
    folder = Path(tempfile.mkdtemp(prefix="pgslice-bench-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    # The servers' user, who is not root, must find its way to its folders.
    folder.chmod(0o711)
    clusters = []
    for name in ("source", "replica"):
        clusters.append(Cluster(folder / name))
        stack.callback(clusters[-1].stop)
    return Bench(settings, folder, pgslice, strict_s3, Peers.find(), *clusters)


def run_group(bench: Bench, name: str) -> report.Section:
    """A group that breaks off is one failure; the others are measured all the same."""
    print(f"\n== {name}: {GROUPS[name].__doc__}", flush=True)
    began = time.monotonic()
    try:
        section = GROUPS[name](bench)
    # Whatever happened to one group says nothing about the next.
    except Exception as error:  # pylint: disable=broad-except
        traceback.print_exc()
        section = report.Section(failures=[f"{name}: {error}"])
        section.add_judged(f"the group `{name}`", "", f"failed: {error}", False)
    print(f"   ({time.monotonic() - began:.0f} s)", flush=True)
    return section


def circumstances(bench: Bench, seconds: float) -> str:
    """Which machine, which programs, which settings."""
    settings = bench.settings
    memory_kibibytes = re.search(r"MemTotal: *(\d+)", Path("/proc/meminfo").read_text())[1]
    model = re.search(r"model name\s*: *(.*)", Path("/proc/cpuinfo").read_text())
    processor = model[1] if model else platform.machine()
    versions = {name: f"{name} {version}" for name, version in bench.peers.versions().items()}
    programs = [
        first_line(str(bench.pgslice), "--version"),
        f"PostgreSQL {bench.source.sql('postgres', 'show server_version')}",
        f"zstd {re.search(r'v([0-9.]+)', first_line('zstd', '--version'))[1]}",
        first_line("gzip", "--version"),
        *versions.values(),
    ]
    server = ", ".join(f"{name} = {value}" for name, value in SETTINGS.items())
    return "\n".join(
        [
            f"Measured on {datetime.date.today()} by `make bench`, {settings.rounds} rounds"
            + (f", {settings.scale:g} of the rows" if settings.scale != 1 else "")
            + f", {seconds / 60:.0f} minutes in all.",
            "",
            f"- Machine: {os.cpu_count()} cores ({processor}), {int(memory_kibibytes) / (1 << 20):.0f} GiB,"
            f" Linux {platform.release()}.",
            f"- Programs: {'; '.join(programs)}.",
            f"- Servers: two clusters on this machine, unix sockets for everyone, {server}; {THROWAWAY_SETTINGS}.",
            f"- Data: {settings.days} days of {bench.rows_a_day:,} messages (demo/fill.sql); zstd -3 everywhere.",
            "- Seconds are medians, with the fastest and the slowest run. Before exports, caches were warmed by a run"
            " that does not count; `sync` before each run.",
            "- CPU of clients: all programs of a pipeline; of the server: its sessions. Peak memory: the programs'"
            " peaks added up.",
        ]
    )


def first_line(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def write(settings: Settings, chapter: str, sections: dict):
    """Always below benches/results; into the document when everything was measured in full."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.md").write_text(f"{chapter}\n")
    raw = {name: section.raw for name, section in sections.items()}
    told = {"settings": {**dataclasses.asdict(settings), "only": sorted(settings.only)}, "groups": raw}
    (RESULTS / "latest.json").write_text(json.dumps(told, indent=2) + "\n")
    places = [RESULTS / "latest.md"]
    if settings.scale == 1 and not settings.only:
        text = DOCUMENT.read_text()
        DOCUMENT.write_text(report.replace_between(text, BEGIN, END, chapter))
        places.append(DOCUMENT)
    print(f"\n{chapter}\n\nWritten to {' and '.join(str(place.relative_to(ROOT)) for place in places)}.")


if __name__ == "__main__":
    sys.exit(main())
