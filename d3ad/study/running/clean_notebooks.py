"""Notebooks as they are committed: with their outputs, and without what changes from run to run or from machine to
machine.
"""
import copy
from pathlib import Path

import nbformat

from d3ad.infra.files import write_whole
from d3ad.study.running.preflight import UsageError

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
KEPT_METADATA = ("jupyter", "tags")
DROPPED_CELLS = {"injected-parameters", "papermill-error-cell-tag"}


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its outputs, without what changes from run to run or from machine to machine.

    Gone are papermill's cells and metadata, time stamps, stderr and random cell ids; code cells count from 1.
    A committed notebook is a fixed point: `normalise` leaves it as it is.
    """
    clean = copy.deepcopy(notebook)
    clean.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE})
    clean.nbformat, clean.nbformat_minor = 4, 5  # the first version whose cells have ids
    clean.cells = [cell for cell in clean.cells if not DROPPED_CELLS & set(cell.metadata.get("tags", []))]
    count = 0  # of code cells that ran
    for number, cell in enumerate(clean.cells, start=1):
        cell.id = f"cell-{number:02d}"
        kept = {key: cell.metadata[key] for key in KEPT_METADATA if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            if cell.execution_count is not None:
                cell.execution_count = count = count + 1
            cell.outputs = _clean_outputs(cell)
    nbformat.validate(clean)
    return clean


def _clean_outputs(cell) -> list:
    """A code cell's outputs without stderr; pieces of stdout, cut as timing has it, are joined."""
    outputs = []
    for output in cell.outputs:
        if output.get("name") == "stderr":
            continue
        if output.output_type == "execute_result":
            output.execution_count = cell.execution_count
        if output.output_type == "stream" and outputs and outputs[-1].output_type == "stream":
            outputs[-1].text += output.text
        else:
            outputs.append(output)
    return outputs


def read_notebook(file) -> nbformat.NotebookNode:
    """A notebook from an open file.  Raises UsageError where it is something else."""
    try:
        return nbformat.read(file, as_version=4)
    except Exception as error:  # nbformat raises nearly anything
        raise UsageError(f"{file.name} is not a notebook ({type(error).__name__})") from None


def to_text(notebook: nbformat.NotebookNode) -> str:
    """The notebook as the text of its file: JSON with sorted keys, one space deep, a newline at the end."""
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def write_clean(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook, normalised, in one go: a reader never sees half of it."""
    write_whole(path, to_text(normalise(notebook)))
