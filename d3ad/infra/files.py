"""Files that appear whole or not at all: written beside their place under another name, then renamed.

The other name holds the machine and the number of the process, so that two runs on one cache don't write into each
other's part; what a killed process of this machine leaves is known by them, and `tidy` takes it away.
"""
import contextlib
import errno
import json
import os
import platform
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import psutil
from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]  # of the checkout
DAY = 24 * 3600  # seconds
MACHINE = re.sub(r"\W", "_", platform.node()) or "_"
LEFT_OVER = re.compile(r"\.(?P<name>.+)\.d3ad-(?P<machine>\w+)-(?P<process>\d+)\.(?P<kind>part|old)")


class Busy(OSError):
    """Another process computes here; its text says which, and what to do."""


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A place to write to; it takes the name `file` at the end of the block, and is gone where the block fails.

    It lies in a folder of its own: safetensors first writes beside its file, under a name that `tidy` couldn't know.
    """
    part = _beside(file, "part")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        with _error_names(file):
            yield part / file.name
            (part / file.name).replace(file)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _error_names(path: Path) -> Iterator[None]:
    """Turn what writing raises, on a full disk for example, into an OSError that names `path`."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path} can't be written: {error}") from None
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a text (UTF-8) or bytes: under a hidden name, which becomes `file` once all is there."""
    part = _beside(file, "part")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _error_names(file):
            part.write_bytes(content.encode() if isinstance(content, str) else content)
            part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def read_json(file: Path):
    """What a JSON file holds.  Raises ValueError naming the file where it isn't JSON, or holds a NaN."""
    def refuse(name: str):
        raise ValueError(f"it holds {name}")

    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}): restore it; one of a cache may be removed, and is made anew"
                         ) from None


def save_tensors(file: Path, tensors: "dict[str, Tensor]", about: dict) -> None:
    """Write tensors as safetensors, on the CPU, with `about` as JSON in the file's header."""
    from safetensors.torch import save_file  # imports torch: a second that the runner needn't wait
    stored: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory, as those of `Calibration.neutral` do; copies of all would
        # double what the state of a training takes
        stored[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    with whole_file(file) as part:
        save_file(stored, part, metadata={"about": json.dumps(about)})


def load_tensors(file: Path) -> "tuple[dict[str, Tensor], dict]":
    """What `save_tensors` wrote: (tensors, about).  Raises ValueError naming the file where it is something else."""
    try:
        with safe_open(file, "pt") as stored:
            names = stored.keys()  # it can't be walked through itself
            return {name: stored.get_tensor(name) for name in names}, json.loads(stored.metadata()["about"])
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}); remove it, and it is computed anew") from error


@contextlib.contextmanager
def _part_of(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, gone at the end of the block unless it was renamed."""
    part = _beside(folder, "part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A new folder that takes its name only once all is written; another process may have been first."""
    with _part_of(folder) as part:
        with _error_names(folder):
            yield part
        with contextlib.suppress(FileExistsError):
            _name(part, folder)


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """As `appearing`, but an older folder of that name makes way; it is removed only when the new one has its name.

    Between the two renames there is no `folder`: a process killed just there leaves the old one beside it, to which
    `tidy` gives its name back.
    """
    tidy(folder.parent, folder.name)
    old = _beside(folder, "old")
    with _part_of(folder) as part:
        try:
            with _error_names(folder):
                yield part
            with contextlib.suppress(FileNotFoundError):
                folder.rename(old)
            # another process saved just now: as if it had been the later one
            with contextlib.suppress(FileExistsError):
                _name(part, folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, kind: str) -> Path:
    """A hidden name, which no reader of datasets or models takes for one."""
    return path.with_name(f".{path.name}.d3ad-{MACHINE}-{os.getpid()}.{kind}")


def _name(part: Path, folder: Path) -> None:
    """Rename a folder; FileExistsError where the name is taken, whichever of its two codes the system gives."""
    try:
        part.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise FileExistsError(f"{folder} exists") from None


def tidy(folder: Path, name: str | None = None) -> None:
    """Take away what killed processes left in a folder and below, or there beside the one entry `name`.

    Parts of processes that still run stay, and, of other machines, those of the last day.  An old folder whose
    successor never got its name is given it back.
    """
    for path in list(folder.iterdir() if name else folder.rglob("*.d3ad-*")) if folder.is_dir() else []:
        match = LEFT_OVER.fullmatch(path.name)
        if not match or (name and match["name"] != name):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process tidies too
            here = match["machine"] == MACHINE
            if _runs(int(match["process"])) if here else time.time() - path.lstat().st_mtime < DAY:
                continue
            if match["kind"] == "old" and not (final := path.with_name(match["name"])).exists():
                path.rename(final)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _runs(process: int) -> bool:
    return process != os.getpid() and psutil.pid_exists(process)


@contextlib.contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold `lock`, a file, during the block; the system lets go of it when the process ends, however it ends.

    what: what only one process may do, for the message.
    Raises Busy, naming the other process, where another holds it.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_locked(lock, timeout=0))
        except filelock.Timeout:
            holder = lock.read_text(encoding="utf-8").strip() if lock.exists() else ""
            raise Busy(f"another process{holder and f' ({holder})'} {what}; wait until it ends, or give another --out"
                       ) from None
        lock.write_text(str(os.getpid()), encoding="utf-8")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                lock.parent.rmdir()  # where nothing else was written there


@contextlib.contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """Hold `lock` during a short block, after waiting for whoever holds it: to read a file and write it changed."""
    with _locked(lock, timeout=-1):
        yield


@contextlib.contextmanager
def _locked(lock: Path, timeout: float) -> Iterator[None]:
    """filelock's lock, waited for `timeout` seconds (-1: for ever); where the file system knows no locks, none, and a
    warning says so.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(lock)
    try:
        held.acquire(timeout=timeout, poll_interval=0.01)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        warnings.warn(f"{lock.parent}: the file system knows no locks, so run one command at a time here", stacklevel=4)
    try:
        yield
    finally:
        held.release()


def explain(error: OSError) -> str:
    """An OSError as one line that says which file, and what to do."""
    again = "free some space, then give the same command again: it goes on where it stopped"
    advice = {errno.ENOSPC: again, errno.EDQUOT: again, errno.EROFS: "choose another folder with --out",
              errno.EACCES: "choose another folder with --out, or change its permissions"}.get(error.errno)
    text = " ".join((error.strerror or str(error)).split())
    where = f"{error.filename}: " if error.filename and str(error.filename) not in text else ""
    return where + text + (f"; {advice}" if advice else "")
