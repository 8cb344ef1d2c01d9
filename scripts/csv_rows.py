"""A CSV file that long measurements add their rows to, so that what stands there is not measured again."""
import contextlib
import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path

from d3ad.infra.files import write_whole


def rows_in(file: Path) -> list[dict[str, str]]:
    """What stands in the file; nothing where there is none."""
    with contextlib.suppress(FileNotFoundError), file.open(newline="", encoding="utf-8") as found:
        return list(csv.DictReader(found))
    return []


def check_one_change(file: Path, jobs: Iterable[tuple[str, str]]) -> None:
    """End the command where the file has a category with another change than its job (category, change) has: a page of
    both would mix two trainings.
    """
    wanted = dict(jobs)
    if mixed := sorted({row["category"] for row in rows_in(file)
                        if wanted.get(row["category"], row["change"]) != row["change"]}):
        raise SystemExit(f"{file} holds another training of {', '.join(mixed)}: name another --out or --categories")


def append_rows(file: Path, columns: list[str], rows: list[dict]) -> None:
    """Add rows at the end, below a header where the file is new: all of them, or, where it is killed, none."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows_in(file), *rows])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, text.getvalue())


def add_missing(file: Path, columns: list[str], keys: tuple[str, ...], jobs: Iterable[tuple],
                measure: Callable[..., list[dict]]) -> None:
    """Add the rows of measure(*job) for each job that the file lacks; a job is one value for each of the columns
    `keys`, and its rows say how many `minutes` they took.
    """
    for job in jobs:
        if any([row[key] for key in keys] == [str(value) for value in job] for row in rows_in(file)):
            continue
        rows = measure(*job)
        append_rows(file, columns, rows)
        print(*job, rows[0]["minutes"], "minutes", flush=True)
