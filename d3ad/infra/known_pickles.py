"""Weights that others publish as a pickle (.pth): read where the file is one that we know, and as tensors only."""
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def known_content(file: Path, sha256: str, remedy: str) -> bytes:
    """What a file holds.  Raises ValueError, which ends with `remedy`, where its SHA-256 is another."""
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{file} is damaged or of another version (its SHA-256 differs): {remedy}")
    return content


def tensors_in(content: bytes) -> "dict[str, Tensor]":
    """The tensors of what `known_content` gave, by name, on the CPU."""
    import torch  # takes seconds, which a mere check of the file can do without
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
