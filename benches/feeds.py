"""Feeds of pgslice: configurations, commands, and what lies in a folder that was published to."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from clusters import ROOT, Bucket
from measuring import Command, Pipeline


@dataclass(frozen=True)
class Tables:
    """Which tables a feed is about: the [[table]] sections of both sides."""

    producer: str
    replica: str


def _sections(path: str) -> str:
    text = (ROOT / path).read_text()
    return text[text.index("[[table]]") :]


def time_table(name: str, column: str) -> Tables:
    section = f'[[table]]\nname = "{name}"\n'
    return Tables(f'{section}time-column = "{column}"\ncolumn-timezone = "UTC"\n', section)


DATANOMMER = Tables(_sections("demo/producer.toml"), _sections("demo/replica.toml"))
MESSAGES = time_table("messages", "timestamp")


@dataclass
class Feed:
    """A place to publish to, a folder or a bucket, and what both sides are told of it."""

    program: Path
    folder: Path
    tables: Tables
    source: str
    bucket: Optional[Bucket] = None

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def _configure(self, side: str, lines: str) -> Path:
        url = "s3://bench/feed" if self.bucket else f"file://{self.store}"
        path = self.folder / f"{side}.toml"
        text = f'dataset = "bench"\n[store]\nurl = "{url}"\n{self.bucket.store_lines if self.bucket else ""}{lines}'
        self.folder.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def _command(self, configuration: Path, arguments: tuple) -> Command:
        environment = self.bucket.environment if self.bucket else {}
        return Command((str(self.program), "--config", str(configuration), *arguments), environment)

    def forget(self):
        """Removes all that was published to a folder."""
        shutil.rmtree(self.store, ignore_errors=True)

    def export(self, first: str, last: str, jobs: int, *flags: str) -> Pipeline:
        lines = f'[source]\nurl = "{self.source}"\n[export]\njobs = {jobs}\n{self.tables.producer}'
        configuration = self._configure("producer", lines)
        command = self._command(configuration, ("export", "--from", first, "--to", last, *flags))
        return Pipeline((command,), target=self.folder / "export.out")

    def catchup(self, replica: str, *flags: str) -> Pipeline:
        configuration = self._configure("replica", f'[replica]\nurl = "{replica}"\n{self.tables.replica}')
        return Pipeline((self._command(configuration, ("catchup", *flags)),), target=self.folder / "catchup.out")

    def prune(self, keep_days: int) -> Pipeline:
        """Lets days go that are older; deletes what earlier runs let go of."""
        lines = f'[retention]\nkeep = "{keep_days}d"\ngrace = "0h"\n{self.tables.producer}'
        command = self._command(self._configure("prune", lines), ("prune", "--json"))
        return Pipeline((command,), target=self.folder / "prune.out")

    def report(self, of: str) -> dict:
        """What the last command of that name with --json said."""
        return json.loads((self.folder / f"{of}.out").read_text())

    def slices(self, day: str) -> list:
        """Of a day in a folder: its slices, as its manifest has them."""
        head = json.loads((self.store / "feed.json").read_text())
        (entry,) = [entry for entry in head["days"] if entry["day"] == day]
        return json.loads((self.store / entry["manifest"]["key"]).read_text())["slices"]

    def rows(self, day: str) -> int:
        return sum(slice["rows"] for slice in self.slices(day))

    def stored_bytes(self, day: str) -> int:
        return sum(slice["stored_bytes"] for slice in self.slices(day))

    def part(self, part: dict) -> Path:
        assert re.fullmatch(r"[\w./~-]+", part["key"])
        return self.store / part["key"]
