"""Archives of many days that were never exported: one day's documents, with other dates in them."""

import datetime
import hashlib
import json

import data
from bench import Bench
from feeds import DATANOMMER
from measuring import run

# The day before the data, whose tables are empty, and its end. Both stand in its documents, and nothing else of 2024.
MODEL_DAY, MODEL_END = "2024-04-30", data.day(1)


class Forge:
    """What an export of the day before the data published, as a model of any number of days up to it."""

    def __init__(self, bench: Bench):
        feed = bench.feed("model", DATANOMMER)
        feed.forget()
        run([[feed.export(MODEL_DAY, MODEL_DAY, 1)]])
        self._head = json.loads((feed.store / "feed.json").read_text())
        (entry,) = self._head["days"]
        self._entry = json.dumps(entry)
        self._manifest = (feed.store / entry["manifest"]["key"]).read_text()
        self._directory = entry["manifest"]["key"].rpartition("/")[0]
        self._keys = [part["key"] for slice in json.loads(self._manifest)["slices"] for part in slice["parts"]]
        feed.forget()

    def head(self, days: int) -> bytes:
        """A feed.json of so many days, ascending, the last of them the model's."""
        entries = [self._entry_of(back) for back in reversed(range(days))]
        ends = (
            {"oldest": entries[0]["day"], "newest": entries[-1]["day"]} if entries else {"oldest": None, "newest": None}
        )
        return json.dumps({**self._head, "days": entries, **ends}, indent=2).encode()

    def objects(self, days: int):
        """Key and content of all that these days are made of. Parts are empty: nobody reads them."""
        for back in range(days):
            manifest = _dated(self._manifest, back)
            directory = _dated(self._directory, back)
            yield f"{directory}/manifest.json", manifest.encode()
            yield f"{directory}/SHA256SUMS", b""
            for key in self._keys:
                yield _dated(key, back), b""

    def _entry_of(self, back: int) -> dict:
        entry = json.loads(_dated(self._entry, back))
        entry["manifest"]["sha256"] = hashlib.sha256(_dated(self._manifest, back).encode()).hexdigest()
        return entry


def _dated(text: str, back: int) -> str:
    """The text with dates so many days before."""
    start, end = (str(_date(day) - datetime.timedelta(back)) for day in (MODEL_DAY, MODEL_END))
    return text.replace(MODEL_DAY, "@start@").replace(MODEL_END, end).replace("@start@", start)


def _date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)
