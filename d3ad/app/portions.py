"""Photographs read and predicted in portions, so that memory doesn't depend on how many there are."""
import contextlib
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from tqdm import tqdm

from d3ad.data.given import RangeWarning
from d3ad.data.pixels import DataError, load_with_size, white_of
from d3ad.data.tree import Entry

PORTION = 32  # images, or one batch where that is more


def portion_size(detector) -> int:
    """Images judged at a time: whole batches, so that a run that goes on forms the batches of an undisturbed one."""
    batch = detector.config.predict_batch
    return batch * max(1, PORTION // batch) * detector.team.count


def white_for(detector, entries: list[Entry]) -> int | None:
    """The white of 16-bit images: the detector's, else what the photographs themselves say; None where there are
    none."""
    return detector.white or white_of(entry.path for entry in entries if entry.kind == "image")


def judged(detector, entries: list[Entry], white: int | None) -> Iterator[tuple]:
    """(entry, prediction, i, size) for each image of one portion, image number i of the prediction, `size` the
    photograph's own.

    An entry that can't be read comes as (entry with its reason, None, 0, None); so do those that were left out before.
    """
    found, images = _read(entries, detector.config.image_size, white)
    return _paired(found, _predict(detector, images))


def in_portions(detector, entries: list[Entry], white: int | None, start: int = 0) -> Iterator[tuple[int, Iterator]]:
    """(number of its first entry, what `judged` says of it) for each portion from entry `start` on.

    While one portion is computed, a thread reads the next.  Small networks on a CPU give several cores too little to do
    in each layer: there, so many threads read and compute a portion each.
    """
    step, size, count = portion_size(detector), detector.config.image_size, threads(detector)

    def work(first: int) -> tuple[list[tuple], object]:
        found, images = _read(entries[first:first + step], size, white)
        return found, images if count == 1 else _predict(detector, images, in_thread=True)

    with _cores_for(count), ThreadPoolExecutor(count, "portions") as pool:
        ahead = deque()
        for first in range(start, len(entries), step):
            last = min(first + count * step, len(entries) - 1)
            while (next_one := ahead[-1][0] + step if ahead else first) <= last:
                ahead.append((next_one, pool.submit(work, next_one)))
            found, result = ahead.popleft()[1].result()
            yield first, _paired(found, result if count > 1 else _predict(detector, result))


def threads(detector) -> int:
    """How many portions are computed at once: as many as there are cores, for small networks on a CPU that no other
    process shares."""
    small = detector.codec.is_small and detector.device.type == "cpu"
    return torch.get_num_threads() if small and detector.team.count == 1 else 1


@contextlib.contextmanager
def _cores_for(count: int) -> Iterator[None]:
    """torch with one core for each of several threads; with 1, as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if count > 1 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read(entries: list[Entry], image_size: int, white: int | None) -> tuple[list[tuple], list[torch.Tensor]]:
    """(entry, number among the images read, the photograph's own size) of each entry, and the images."""
    read, found = [], []
    for entry in entries:
        try:
            if entry.kind == "image":
                image, size = load_with_size(entry.path, image_size, white)
                found.append((entry, len(read), size))
                read.append(image)
                continue
        except DataError as error:
            entry = unreadable(entry, error)
        except MemoryError:
            entry = unreadable(entry, "too big for this machine's memory")
        found.append((entry, 0, None))
    return found, read


def _predict(detector, images: list[torch.Tensor], in_thread: bool = False):
    """The prediction of images that were read from files, so their range is known; None where there is none.

    in_thread: in one of several threads, where warnings can't be held back, and where the detector is a D3AD.
    """
    if not images:
        return None
    if in_thread:
        return detector.predict(torch.stack(images), value_range=(-1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        return detector.predict(torch.stack(images))


def _paired(found: list[tuple], prediction) -> Iterator[tuple]:
    """What `judged` gives, of what `_read` found and its prediction."""
    for entry, i, size in found:
        yield entry, prediction if size else None, i, size


def unreadable(entry: Entry, reason: DataError | str) -> Entry:
    """The entry as left out, and lost."""
    reason = str(reason).removeprefix(f"{entry.path}: ").split("; replace")[0]
    return replace(entry, kind="left out", reason=reason, lost=True)


def scores_of(detector, entries: list[Entry], progress: bool = False) -> tuple[torch.Tensor, list[Entry]]:
    """Scores (N,) of all images that can be read, in portions, and what could not."""
    white, scores, lost = white_for(detector, entries), [], []
    total = -(-len(entries) // portion_size(detector))
    for _, portion in tqdm(in_portions(detector, entries, white), "good images", total, disable=not progress):
        for entry, prediction, i, _ in portion:
            if prediction is None:
                lost.append(entry)
            else:
                scores.append(prediction.score[i])
    return (torch.stack(scores) if scores else torch.empty(0)), lost
