"""Speed and growth as measured last, and what each preset costs in quality."""
from collections.abc import Callable

from d3ad.speed.benchmark import kept
from d3ad.study import paper
from d3ad.study.ablations import TITLES
from d3ad.study.ranking import over_seeds
from d3ad.study.readme import measured
from d3ad.study.readme.cells import markdown_table, mean_and_spread

NAMES = {"reference": "the reference implementation", "fast, float32": "`fast` in float32",
         "PatchCore": "PatchCore (anomalib)", "EfficientAD": "EfficientAD (anomalib)"}


def speed(up: str) -> str:
    """Images per second at the paper's sizes, from the machine measured last."""
    return _last_measured("inference", "{memory_gb:.0f} GB of memory; random weights", {
        "": lambda row: NAMES.get(row["preset"], f"`{row['preset']}`"),
        "images per second": lambda row: f"{row['images_per_second']:.2f}",
        "times the reference": lambda row: f"{row['speedup']:.2f}",
        "precision": lambda row: row.get("precision", "float32"),
        "steps S": lambda row: row.get("num_steps", 10 if row["preset"] == "reference" else "")})


def methods(up: str) -> str:
    """Table 8 at the paper's sizes: every method on one image and on a batch, beside what the paper reports."""
    cells = paper.cells(8)
    reported = cells[cells["metric"] == "seconds"].set_index("method")["reported"].rename({"D3AD": "D3AD, faithful"})
    try:
        rows = kept("methods", "paper")
    except FileNotFoundError:
        return "Not measured."
    shown: dict[str, dict[int, dict]] = {}
    for row in rows:
        shown.setdefault(row["method"], {})[row["batch"]] = row
    batches = sorted({row["batch"] for row in rows})
    one, many = batches[0], batches[-1]
    order = sorted(shown, key=lambda method: shown[method][many]["seconds_per_image"])
    table = markdown_table(
        ["", "seconds, one image", f"seconds per image, {many} at once", f"MB, {many} at once", "reported, 30 at once"],
        [[method + " (estimated)" * bool(shown[method][one]["estimated"]),
          *(f"{shown[method][batch]['seconds_per_image']:.3g}" for batch in (one, many)),
          f"{shown[method][many]['megabytes']:,}", str(reported.get(method, ""))]
         for method in order])
    about = "{device}, {threads} threads, commit {commit}; 256 x 256 pixels. ".format_map(rows[0])
    return f"{about}Compare times within a table only: each is a run of its own.\n\n{table}"


def growth(up: str) -> str:
    """Time and memory against the number of photographs, training images and pixels, with the picture."""
    picture = f"\n\n![how time and memory grow]({up}results/benchmark/growth.png)"
    return _last_measured("growth", "the demo profile's networks", {
        "": lambda row: row["way"],
        "seconds": lambda row: f"{row['seconds']:.2f}",
        "milliseconds per image": lambda row: f"{1000 * row['seconds_per_image']:.1f}",
        "MB": lambda row: f"{row['megabytes']:,}"}, picture)


def _last_measured(part: str, about: str, columns: dict[str, Callable[[dict], str]], below: str = "") -> str:
    """The rows that a part of the benchmark measured last, under a line that says on which machine.

    about: the rest of that line, with a row's fields in braces.  columns: a title to what stands there of a row.
    below: follows the table.
    """
    try:
        rows = kept(part, "paper")
    except FileNotFoundError:
        return "Not measured."
    machine = "{device}, {threads} threads, " + about
    table = markdown_table(columns, [[cell(row) for cell in columns.values()] for row in rows])
    return f"{machine.format_map(rows[0])}:\n\n{table}{below}"


def presets(up: str) -> str:
    """What each preset costs in quality, a table per profile that has measured it."""
    parts = []
    for profile, frame in measured.frames("presets").items():
        rows = [[f"`{row['method']}`", *(mean_and_spread(row[f"measured_{m}"], row[f"spread_{m}"]) for m in TITLES)]
                for _, row in over_seeds(measured.of_split(profile, frame)).iterrows()]
        parts.append(f"`{profile}`, in percent:\n\n" + markdown_table(["", *TITLES.values()], rows))
    return "\n\n".join(parts) or "Not measured."
