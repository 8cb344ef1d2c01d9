"""Any number of photographs: judged in portions, written as they are judged, resumed after a kill.

Beside the results lies `.d3ad`, a folder with what an earlier run wrote (so that the next one can take away that and
nothing else), how far a run has come, and the pictures of the page in the making.  A portion counts once its rows stand
in scores.csv and `.d3ad/run.json` says so; a run that goes on begins behind the last that counts, with the same
portions as an undisturbed one, so its results are the same byte for byte.
"""
import contextlib
import csv
import hashlib
import heapq
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from d3ad.app import report
from d3ad.app.portions import in_portions, portion_size, unreadable, white_for
from d3ad.data.pixels import DataError, picture
from d3ad.data.tree import RECORD, Entry, results_in
from d3ad.infra.files import alone, tidy, write_whole
from d3ad.infra.processes import Alone

COLUMNS = ("path", "score", "t_hat", "is_anomalous", "threshold", "state", "width", "height", "boxes", "picture")
JUDGED = "judged"
WATCH = "watch "  # how the key of a watch begins
LEFT_OUT = 3  # exit code: done, but something that may be a photograph was left out


@dataclass
class Summary:
    """What came of a run."""

    num_judged: int = 0
    num_flagged: int = 0
    left_out: list[Entry] = field(default_factory=list)  # not judged, with the reason; masks are not among them
    num_masks: int = 0
    num_new: int = 0  # judged by this run itself: one that goes on counts the killed run's in num_judged only

    @property
    def num_lost(self) -> int:
        """Files that may be photographs and were not judged."""
        return sum(entry.lost for entry in self.left_out)


def without_results(entries: list[Entry], out: Path) -> list[Entry]:
    """The entries without what earlier runs wrote to `out`, which may lie in the folder of photographs, or be it."""
    top = Path(out).resolve()
    own = results_in(top)
    return [entry for entry in entries if (path := entry.path.parent.resolve() / entry.path.name) not in own
            and not path.is_relative_to(top / ".d3ad")]


def row_of(entry: Entry, prediction=None, i: int = 0, size: tuple[int, int] | None = None, threshold: float = 0.0,
           stem: str = "", found: list | None = None) -> dict:
    """A row of scores.csv; of what was not judged only path and state."""
    if prediction is None:
        return dict.fromkeys(COLUMNS, "") | dict(path=entry.name, state=f"left out: {entry.reason}")
    score = float(prediction.score[i])
    return dict(path=entry.name, score=f"{score:.6f}", t_hat=int(prediction.t_hat[i]), is_anomalous=score > threshold,
                threshold=f"{threshold:.6f}", state=JUDGED, width=size[0], height=size[1], boxes=json.dumps(found),
                picture=stem)


class Out:
    """The folder that gets the results: its scores.csv, pictures, and the record of what was written."""

    def __init__(self, folder: Path, threshold: float, raw: bool = False, pictures: str = "all"):
        self.folder, self.threshold, self.raw, self.pictures = Path(folder), threshold, raw, pictures
        self.hidden = self.folder / ".d3ad"
        self.table, self.record, self.run, self.page = (self.folder / "scores.csv", self.folder / RECORD,
                                                        self.hidden / "run.json", self.hidden / "page")

    def begin(self, key: str) -> int:
        """How many entries an unfinished run of the same key has done; where there is none, 0, and what an earlier run
        wrote goes.

        Raises FileExistsError where that was a watch: its record may be all that is left of its photographs.
        """
        try:
            state = json.loads(self.run.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            state = {}
        if str(state.get("key", "")).startswith(WATCH) and state["key"] != key:
            raise FileExistsError(f"{self.folder} holds what `watch` judged in another folder, with another model, "
                                  "threshold or preset, or in an older version: choose another --out")
        tidy(self.folder)  # of a killed process
        self.page.mkdir(parents=True, exist_ok=True)
        whole = self.table.exists() and self.table.stat().st_size >= state.get("bytes", math.inf)
        if state.get("key") == key and not state.get("finished") and whole:
            os.truncate(self.table, state["bytes"])
            for file in self.page.iterdir():
                if file.is_file() and (not file.stem.isdigit() or int(file.stem) >= state["done"]):
                    file.unlink()
            return state["done"]
        self.clear()
        self.announce("scores.csv")
        self.table.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
        self.reached(key, 0)
        return 0

    def clear(self) -> None:
        """Take away what earlier runs wrote here, and their folders where they are empty then; nothing else."""
        top, folders = self.folder.resolve(), set()
        for name in self.record.read_text(encoding="utf-8").splitlines() if self.record.exists() else []:
            file = self.folder / name
            if ".." in Path(name).parts or Path(name).is_absolute() or not file.parent.resolve().is_relative_to(top):
                continue  # not a name that a run of ours writes down
            file.unlink(missing_ok=True)
            folders.add(file.parent)
        for folder in folders - {self.folder}:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        shutil.rmtree(self.page, ignore_errors=True)
        self.page.mkdir(parents=True)
        self.record.unlink(missing_ok=True)

    def announce(self, name: str) -> None:
        """Write down that a file is going to be ours."""
        with self.record.open("a", encoding="utf-8") as record:
            record.write(name + "\n")

    def reached(self, key: str, done: int, finished: bool = False) -> None:
        """Have a run that goes on begin behind `done` entries."""
        write_whole(self.run, json.dumps(dict(key=key, done=done, bytes=self.table.stat().st_size,
                                              finished=finished)) + "\n")

    def one(self, number: int, entry: Entry, prediction, i: int, size, white: int | None, width: int) -> dict:
        """Write the pictures of one judged image; returns its row.  Raises DataError where its score is no number."""
        if not math.isfinite(float(prediction.score[i])):
            raise DataError(f"{entry.path}: its score is not a finite number")
        stem, anomaly_map = report.file_stem(number, entry.name, width), prediction.anomaly_map[i]
        above = report.above_threshold(anomaly_map, self.threshold, size)
        flagged = float(prediction.score[i]) > self.threshold
        drawn = self.pictures == "all" or (self.pictures == "flagged" and flagged)
        if drawn:
            report.write_pictures(self.folder, stem, picture(entry.path, white), anomaly_map, self.threshold, self.raw,
                                  above, self.announce)
        return row_of(entry, prediction, i, size, self.threshold, stem if drawn else "",
                      report.boxes(above, anomaly_map))

    def append(self, rows: list[dict]) -> None:
        """Add rows to scores.csv, in one write."""
        text = io.StringIO()
        csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(rows)
        with self.table.open("a", encoding="utf-8", newline="") as table:
            table.write(text.getvalue())

    def rows(self) -> Iterator[dict]:
        """The rows of scores.csv, as text."""
        with self.table.open(encoding="utf-8", newline="") as table:
            yield from csv.DictReader(table)


def judge(detector, entries: list[Entry], out: Path, threshold: float, guarantee: str, raw: bool = False,
          pictures: str = "all", coco: bool = False, key: str = "", progress: bool = False) -> Summary:
    """Judge all entries of `d3ad.data.tree.collect` and write the results as they come; go on where a killed run
    stopped.

    threshold: of scores and map values.  guarantee: one sentence on where it comes from, for the page.
    pictures: for "all", the "flagged" or "none".  coco: write the regions as coco.json, too.
    key: what else the results depend on, such as the model; a run goes on only with its own key.
    Memory depends on the size of the images and of a portion, not on their number, but for one line each.
    Raises OSError where the folder can't be written, or another process writes there.
    """
    masks = [entry for entry in entries if entry.kind == "mask"]
    entries = [entry for entry in entries if entry.kind != "mask"]
    place = Out(out, threshold, raw, pictures)
    step, width = portion_size(detector), max(4, len(str(max(len(entries) - 1, 0))))
    team, summary = detector.team, Summary(num_masks=len(masks))
    if not team.is_first:
        done, white = _agreed(0, team), white_for(detector, entries)
        for _, portion in in_portions(detector, entries, white, done):
            for _ in portion:  # its share of each portion's batches
                pass
        return summary
    place.hidden.mkdir(parents=True, exist_ok=True)
    with alone(place.hidden / "lock", f"is writing to {out}"):
        key = _key(key, entries, threshold, raw, pictures, step)
        done, white = _agreed(place.begin(key), team), white_for(detector, entries)
        kept = _Kept(place.page)
        for start, portion in tqdm(in_portions(detector, entries, white, done), "predict", disable=not progress,
                                   initial=done // step, total=-(-len(entries) // step)):
            rows = []
            for number, (entry, prediction, i, size) in enumerate(portion, start):
                if prediction is None:
                    rows.append(row_of(entry))
                    continue
                try:
                    rows.append(place.one(number, entry, prediction, i, size, white, width))
                except DataError as error:  # it went away, or its score is no number
                    rows.append(row_of(unreadable(entry, error)))
                    continue
                summary.num_new += 1
                with contextlib.suppress(DataError):  # or after its pictures were written: only the page lacks it
                    kept.offer(number, float(prediction.score[i]), lambda: report.item_of(
                        picture(entry.path, white), prediction.anomaly_map[i], prediction.reconstruction[i], threshold))
            place.append(rows)
            place.reached(key, start + len(rows))
            kept.forget()
        _finish(place, entries, summary, kept, guarantee, coco)
        place.reached(key, len(entries), finished=True)
        # not before: a run that goes on after a kill in between would write a page without pictures
        shutil.rmtree(place.page, ignore_errors=True)
    return summary


def _agreed(done: int, team: Alone) -> int:
    """Where the first of several processes begins, in all of them."""
    return max(team.gather([done]))


def _key(key: str, entries: list[Entry], *settings) -> str:
    """12 hex digits of all that the results depend on: the photographs by name, size and time."""
    digest = hashlib.sha256(repr((key, settings, COLUMNS)).encode())
    for entry in entries:
        try:
            seen = entry.path.stat()
            digest.update(f"{entry.name}\0{entry.kind}\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{entry.name}\0{entry.kind}\n".encode())
    return digest.hexdigest()[:12]


class _Kept:
    """The pictures of the highest scores, a file each, until the page is written."""

    def __init__(self, folder: Path):
        self.folder, self.heap, self.gone = folder, [], []
        for file in folder.iterdir():
            heapq.heappush(self.heap, (json.loads(file.read_text(encoding="utf-8"))["exact"], -int(file.stem)))
        self._evict()

    def offer(self, number: int, score: float, make: Callable[[], dict]) -> None:
        """Keep an image's pictures where it is among the highest so far."""
        if len(self.heap) >= report.MOST and (score, -number) < self.heap[0]:
            return
        write_whole(self.folder / f"{number}.json", json.dumps(make() | {"exact": score}))
        heapq.heappush(self.heap, (score, -number))
        self._evict()

    def _evict(self) -> None:
        while len(self.heap) > report.MOST:
            self.gone.append(-heapq.heappop(self.heap)[1])

    def forget(self) -> None:
        """Remove what is no longer among the highest; called once the portion counts, so that a kill loses none."""
        for number in self.gone:
            (self.folder / f"{number}.json").unlink(missing_ok=True)
        self.gone = []

    def item(self, number: int) -> dict:
        """The pictures of image `number`, {} where it is not among the highest."""
        file = self.folder / f"{number}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _finish(place: Out, entries: list[Entry], summary: Summary, kept: _Kept, guarantee: str, coco: bool) -> None:
    """The page and coco.json from scores.csv; counts what it says."""
    kept.forget()
    scores = []
    for row, entry in zip(place.rows(), entries, strict=True):
        if row["state"] != JUDGED:
            lost = entry.lost or entry.kind == "image"
            summary.left_out.append(replace(entry, kind="left out", reason=row["state"].removeprefix("left out: "),
                                            lost=lost))
            continue
        summary.num_judged += 1
        summary.num_flagged += row["is_anomalous"] == "True"
        scores.append(float(row["score"]))

    def items():
        for number, row in enumerate(place.rows()):
            if row["state"] == JUDGED:
                pictures = kept.item(number)
                score = pictures.pop("exact", float(row["score"]))
                yield dict(path=row["path"], score=score, t_hat=int(row["t_hat"]), files=_files(place, row)) | pictures

    left_out = [dict(path=entry.name, state=entry.reason) for entry in summary.left_out]
    place.announce("report.html")
    report.compose_page(place.folder / "report.html", items(), scores, place.threshold, guarantee,
                        min(len(kept.heap), len(scores)), left_out, summary.num_flagged)
    if coco:
        place.announce("coco.json")
        write_whole(place.folder / "coco.json", json.dumps(as_coco(place.rows())) + "\n")


def _files(place: Out, row: dict) -> list[str]:
    """The pictures of a row that lie in the folders beside the page."""
    if not row["picture"]:
        return []
    suffix = report.suffix_of(int(row["width"]) * int(row["height"]))
    return [f"overlays/{row['picture']}{suffix}", f"heat_maps/{row['picture']}{suffix}", f"masks/{row['picture']}.png"]


def as_coco(rows) -> dict:
    """The regions above the threshold in COCO's form: bbox and area in the photograph's pixels, score the map's highest
    value there."""
    images, annotations = [], []
    for row in rows:
        if row["state"] != JUDGED:
            continue
        images.append(dict(id=len(images) + 1, file_name=row["path"], width=int(row["width"]),
                           height=int(row["height"])))
        for x, y, width, height, area, score in json.loads(row["boxes"]):
            annotations.append(dict(id=len(annotations) + 1, image_id=images[-1]["id"], category_id=1,
                                    bbox=[x, y, width, height], area=area, score=score, iscrowd=0))
    return dict(info=dict(description="regions above the threshold, found by d3ad"), images=images,
                annotations=annotations, categories=[dict(id=1, name="anomaly", supercategory="")])
