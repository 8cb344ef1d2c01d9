"""Files that appear whole or not at all: written beside their place under another name, then renamed.

A name of its own per process, so that two runs on one cache don't write into each other's part.
"""
import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A place to write to; it takes the name `file` at the end of the block, and is gone where the block fails."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a text (UTF-8) or bytes."""
    with whole_file(file) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def save_tensors(file: Path, tensors: "dict[str, Tensor]", about: dict) -> None:
    """Write tensors as safetensors, on the CPU, with `about` as JSON in the file's header."""
    from safetensors.torch import save_file  # takes torch with it, a second that the runner need not wait
    with whole_file(file) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, metadata={"about": json.dumps(about)})


def load_tensors(file: Path) -> "tuple[dict[str, Tensor], dict]":
    """What `save_tensors` wrote: (tensors, about)."""
    from safetensors import safe_open
    with safe_open(file, "pt") as stored:
        return {key: stored.get_tensor(key) for key in stored.keys()}, json.loads(stored.metadata()["about"])


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes its name only once all is written; another process may have been first."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if not folder.exists():
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
