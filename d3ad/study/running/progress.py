"""What the command says while notebooks run: which one, how many are done, and roughly how long is left."""
import json
import os
import threading
import time
from pathlib import Path

from d3ad.infra.files import read_json, write_whole

CACHED_MINUTES = 0.1  # of a notebook that only reads the cache and draws


class Progress:
    """Passes a notebook's progress bars on: to a terminal as they move, to a log as finished lines only.

    moving: False for finished lines only, on a terminal as well.
    """

    def __init__(self, stream, moving: bool = True):
        self.stream, self.used, self.line = stream, False, ""
        self.moving = moving and stream.isatty()

    def write(self, text: str) -> None:
        """Take a piece of a notebook's stderr."""
        if not self.used:
            text, self.used = "\n" + text, True  # below the line that names the notebook
        if not self.moving:
            *finished, self.line = (self.line + text).split("\n")
            text = "".join(line.rpartition("\r")[2] + "\n" for line in finished)
        self.stream.write(text)

    def flush(self) -> None:
        """Show what was taken."""
        self.stream.flush()


def elapsed(started: float) -> str:
    """The time since `started` (of time.monotonic), in seconds or minutes."""
    return duration(time.monotonic() - started)


def duration(seconds: float) -> str:
    """A time in seconds, or from one minute on in minutes."""
    return f"{seconds:.0f} s" if seconds < 59.5 else f"{seconds / 60:.1f} min"


class Forecast:
    """How long the notebooks of a run will take, from what they took before.

    expected: minutes of each notebook; where one is missing, nothing is said.  share: of their sum that all take, as
    some go side by side.
    """

    def __init__(self, expected: dict[str, float | None], share: float = 1.0):
        self.expected, self.share, self.took, self.started = expected, share, {}, time.monotonic()

    def done(self, notebook: str, minutes: float) -> None:
        """Take note of what a notebook took."""
        self.took[notebook] = minutes

    def minutes(self) -> float | None:
        """Minutes of those that are not done, at the pace of those that are; None where not known."""
        left = [minutes for name, minutes in self.expected.items() if name not in self.took]
        if None in left:
            return None
        computed = [name for name in self.took if (self.expected[name] or 0) > CACHED_MINUTES]
        before = sum(self.expected[name] for name in computed)
        pace = sum(self.took[name] for name in computed) / before if before else 1.0
        return self.share * sum(left) * min(max(pace, 0.25), 4.0)  # a few short ones don't say more

    def __str__(self) -> str:
        minutes, count = self.minutes(), len(self.took)
        words = [f"{count} of {len(self.expected)} done in {elapsed(self.started)}"] if count else []
        if minutes is not None:
            words.append(f"about {duration(60 * minutes)} left")
        return f" ({', '.join(words)})" if words else ""


def kept_minutes(file: Path, settings: str) -> dict:
    """What `keep_minutes` has noted of these settings: "minutes" of each notebook, and "total" of all in one run."""
    kept = read_json(file) if file.exists() else {}
    return kept if kept.get("settings") == settings else {"minutes": {}, "settings": settings}


def keep_minutes(file: Path, settings: str, notebook: str | None, took: float, anew: bool = False) -> None:
    """Note a notebook's minutes, or with None those of a run of all.

    anew: of a run of all from an empty cache, which counts whatever was noted before, perhaps on another machine.  Of
    other runs with the same settings the longest counts: it computed the most.
    """
    kept = kept_minutes(file, settings)
    place, name = (kept["minutes"], notebook) if notebook else (kept, "total")
    place[name] = round(took, 1) if anew else max(place.get(name, 0.0), round(took, 1))
    write_whole(file, json.dumps(kept, indent=1, sort_keys=True) + "\n")


class FirstFigure(threading.Thread):
    """A context manager that announces, once, the first new figure in `folder`."""

    def __init__(self, folder: Path, started: float):
        super().__init__(daemon=True)
        self.folder, self.started, self.over, self.before = folder, started, threading.Event(), self._times(folder)

    @staticmethod
    def _times(folder: Path) -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in sorted(folder.glob("*.png"))}

    def __enter__(self):
        self.start()

    def __exit__(self, *error):
        self.over.set()

    def run(self) -> None:
        """Look every second, until there is one or the context is left."""
        while not self.over.wait(1):
            for file, time_written in self._times(self.folder).items():
                if time_written != self.before.get(file):
                    print(f"\nfirst figure after {elapsed(self.started)}: {os.path.relpath(file)}", flush=True)
                    return
