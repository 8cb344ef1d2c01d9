"""Photographs judged as they arrive in a folder: a line of JSON each, and a row of scores.csv."""
import json
import time
from pathlib import Path

from d3ad.app.judging import COLUMNS, JUDGED, WATCH, Out, Summary, row_of
from d3ad.app.portions import judged, unreadable, white_for
from d3ad.data.pixels import DataError
from d3ad.data.tree import collect, walk
from d3ad.infra.files import alone

EARLIER = "judged by an earlier watch"  # in place of size and time, which that one didn't keep


def arrivals(folder: Path, known: dict, seen: dict, out: Path | None = None):
    """Entries below a folder that are new, or written anew, and whole: size and time are as they were at the last look.

    known: (size, time) of what is done by name, which grows; EARLIER is taken as the file is found.  seen: (size, time)
    of the others at the last look, changed in place.  out: where results go, which is no arrival.
    """
    own = out and out.resolve()
    for entry in walk(folder):
        if entry.kind == "mask" or (own and entry.path.resolve().is_relative_to(own)):
            continue
        try:
            stat = entry.path.stat()
            now = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            now = None
        if entry.name in known and (entry.kind != "image" or known[entry.name] in (EARLIER, now)):
            known[entry.name] = now
            continue
        if seen.get(entry.name, 0) == now:  # a writer has let go of it
            known[entry.name] = now
            yield entry
        seen[entry.name] = now


def watch(detector, folder: str, out: Path, threshold: float, interval: float = 1.0, raw: bool = False,
          pictures: str = "all", key: str = "", say=print, rounds: int | None = None,
          summary: Summary | None = None) -> int:
    """Judge what arrives in `folder` until Ctrl-C (KeyboardInterrupt); what an earlier watch of the same key and folder
    judged is not judged again.  A photograph that is written anew while this runs is.

    Each judged photograph is a line of JSON through `say`: path, state, score, is_anomalous, threshold, t_hat, width,
    height, boxes and picture; so is what can't be read.  A photograph counts as whole once two looks, `interval`
    seconds apart, find it the same.
    rounds: so many looks, for tests.  summary: counts what is judged, and gets what isn't, as it comes.
    Returns the number of photographs that could not be judged.
    Raises DataError where there is no such folder, ValueError where `out` is that folder, FileExistsError where it
    holds what a watch of another folder, model or threshold judged: that record may be all that is left of its parts.
    """
    if Path(out).resolve() == Path(folder).resolve():
        raise ValueError(f"{out} is the folder that is watched: choose another --out")
    collect([folder])  # says so where it doesn't exist
    place, summary, seen = Out(out, threshold, raw, pictures), summary or Summary(), {}
    place.hidden.mkdir(parents=True, exist_ok=True)
    with alone(place.hidden / "lock", f"is writing to {out}"):
        key = f"{WATCH}{key} {threshold!r} {Path(folder).resolve()}"
        number = place.begin(key)
        known = {row["path"]: EARLIER for row in place.rows()}
        white = None  # of 16-bit photographs: the highest seen so far, where the detector doesn't know it
        while rounds is None or rounds > 0:
            for entry in arrivals(Path(folder), known, seen, Path(out)):
                white = max(filter(None, (white, white_for(detector, [entry]))), default=None)
                found, prediction, i, size = next(judged(detector, [entry], white))
                try:
                    row = place.one(number, found, prediction, i, size, white, 6) if prediction else row_of(found)
                except DataError as error:  # it went away, or its score is no number
                    found, prediction = unreadable(found, error), None
                    row = row_of(found)
                if prediction:
                    summary.num_judged += 1
                else:
                    summary.left_out.append(found)
                place.append([row])
                number += 1
                place.reached(key, number)
                say(json.dumps(as_line(row)))
            rounds = rounds and rounds - 1
            if rounds != 0:
                time.sleep(interval)
    return summary.num_lost


def as_line(row: dict) -> dict:
    """A row of scores.csv with its numbers as numbers; what was not judged has path and state only."""
    if row["state"] != JUDGED:
        return dict(path=row["path"], state=row["state"])
    line = {name: row[name] for name in COLUMNS}
    return line | dict(score=float(row["score"]), threshold=float(row["threshold"]), boxes=json.loads(row["boxes"]))
