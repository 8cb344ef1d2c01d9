"""A CSV file that long measurements add their rows to, so that what stands there is not measured again."""
import csv
from pathlib import Path


def rows_in(file: Path) -> list[dict[str, str]]:
    """What stands in the file; nothing where there is none."""
    return list(csv.DictReader(file.open(encoding="utf-8"))) if file.exists() else []


def append_rows(file: Path, columns: list[str], rows: list[dict]) -> None:
    """Add rows at the end, below a header where the file is new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    is_new = not rows_in(file)
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns)
        if is_new:
            writer.writeheader()
        writer.writerows(rows)
