"""Runs the notebooks in order, each from its clean source, and keeps the committed ones clean.

    python -m d3ad.study.runner [--profile P] [--data-root DIR] [--only 03,05] [--out DIR] [--workers ray] [--force]
    python -m d3ad.study.runner --update-notebooks        # for maintainers: run, then write notebooks/ anew
    python -m d3ad.study.runner --normalise FILE...       # for maintainers: clean these notebooks in place

`run_all.sh` is this, after the environment is set up.
"""
import argparse
import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from d3ad.infra.files import ROOT, Busy, alone, explain, read_json, tidy, write_whole
from d3ad.study.running.nursery import ENVIRONMENT, Nursery
from d3ad.study.running.preflight import UsageError, check_data, check_parameters, check_weights, say_costs
from d3ad.study.running.progress import (
    CACHED_MINUTES,
    FirstFigure,
    Forecast,
    Progress,
    elapsed,
    keep_minutes,
    kept_minutes,
)
from d3ad.study.settings import cache_folder, has_papers_unet, settings_hash, settings_of, study_profiles

# papermill, nbformat and what rests on them are imported where they are needed: it takes two seconds, in which the
# nursery imports as well
if TYPE_CHECKING:
    from nbformat import NotebookNode

# 01 and 09 each train one network after the other, in one process; of the others, one draws while the other computes
BESIDE = (("01", "09"), ("03", "05"), ("04", "06"))


class NotebookError(Exception):
    """A notebook that did not run to its end; its text says where and why."""


def execute(source: Path, target: Path, parameters: dict, stderr=None, nursery: Nursery | None = None,
            save_each_cell: bool = True) -> "NotebookNode":
    """Run one notebook with this interpreter, in a kernel of the nursery where there is one, and write the executed
    copy to `target`.

    Where it fails, the copy is `<name>.unfinished.ipynb` beside `target`; with `save_each_cell` also while it runs.
    `stderr` gets what the notebook writes there, progress bars above all.
    Raises NotebookError where it fails.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    from d3ad.study.running import kernels
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished.ipynb")
    unfinished.unlink(missing_ok=True)
    try:
        notebook = papermill.execute_notebook(
            str(source), str(unfinished), parameters, cwd=str(source.parent), kernel_name="python3",
            kernel_manager_class=kernels.manager(nursery), progress_bar=False, stderr_file=stderr, start_timeout=600,
            request_save_on_cell_execute=save_each_cell)
    except papermill.exceptions.PapermillExecutionError as error:
        reason = " ".join(f"cell [{error.exec_count}]: {error.ename}: {error.evalue}".split())
    except DeadKernelError:
        reason = "its process died (is the memory full?)"
    except RuntimeError as error:  # of a process that didn't start
        reason = str(error)
    else:
        unfinished.replace(target)
        return notebook
    raise NotebookError(reason + f"\nexecuted so far: {os.path.relpath(unfinished)}" * unfinished.exists())


# ---- the command ----


class _Parser(argparse.ArgumentParser):
    def error(self, message):  # one line, where argparse would print the usage too
        raise UsageError(f"{message} (allowed: --profile --data-root --only --out --workers --force; see --help)")


def folder(text: str) -> Path:
    """A folder's absolute path; it need not exist yet."""
    path = Path(text).expanduser().resolve()
    if not text or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; raise UsageError where it makes no sense."""
    parser = _Parser(prog="run_all.sh", allow_abbrev=False,
                     description="Regenerates every figure and table by running the notebooks in order.")
    add = parser.add_argument
    add("--profile", metavar="P", default=os.environ.get("D3AD_PROFILE") or "demo",
        help=f"{', '.join(study_profiles())}; by default %(default)s")
    add("--data-root", metavar="DIR", type=folder, default=os.environ.get("D3AD_DATA_ROOT") or None,
        help="where the real dataset lies")
    add("--only", metavar="03,05", help="only these notebooks, by number")
    add("--out", metavar="DIR", type=folder, default=os.environ.get("D3AD_OUT") or None,
        help="figures/, results/, notebooks/ and cache/ go there, and the checkout stays as it was")
    add("--workers", choices=("local", "ray"), default=os.environ.get("D3AD_WORKERS") or "local",
        help="who computes: processes on this machine, or those of a Ray cluster (RAY_ADDRESS, else this machine)")
    add("--force", action="store_true", help="compute again what the cache keeps of this profile")
    add("--update-notebooks", action="store_true", help="maintainers: write notebooks/ anew")
    add("--normalise", metavar="FILE", nargs="+", type=argparse.FileType(encoding="utf-8"),
        help="maintainers: clean these notebooks in place")
    return parser.parse_args(arguments)


def choose(notebooks: Path, only: str | None) -> list[Path]:
    """The notebooks NN_*.ipynb of a folder in order: all of them, or those whose numbers `only` lists."""
    numbered = {path.name[:2]: path for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))}
    if not numbered:
        raise UsageError(f"there are no notebooks in {notebooks}")
    wanted = set(numbered) if only is None else {number.strip().zfill(2) for number in only.split(",")}
    unknown = sorted(wanted - set(numbered))
    if unknown:
        raise UsageError(f"--only: no notebook {', '.join(unknown)} (allowed: {', '.join(numbered)})")
    return [path for number, path in numbered.items() if number in wanted]


def check(options: argparse.Namespace, notebooks: Path) -> list[Path]:
    """The notebooks to run; raises UsageError for what can be known before the long work."""
    try:
        config, study = settings_of(options.profile)
        if not study.datasets:
            raise ValueError(f"the {options.profile} profile names no dataset: it is for python -m d3ad fit, and for "
                             "notebook 09 with a good_folder")
    except ValueError as error:
        raise UsageError(error) from None
    # the name is another where D3AD_SET changes it
    options.results, options.settings = config.name, settings_hash(config, study)
    options.networks_are_small = not has_papers_unet(config)
    if options.update_notebooks and (options.results != "demo" or options.out):
        raise UsageError("--update-notebooks goes with the demo profile, and not with --out")
    if options.workers not in ("local", "ray"):  # argparse doesn't look at a default
        raise UsageError(f"D3AD_WORKERS must be local or ray; got {options.workers}")
    if options.workers == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError('--workers ray takes Ray, which is not installed: pip install "d3ad[cluster]"')
    check_data(options.profile, study, options.data_root)
    check_weights(config)
    return choose(notebooks, options.only)


def parameters(options: argparse.Namespace) -> dict:
    """What the notebooks are told; an empty string means: not given, take the usual place."""
    return {name: str(vars(options)[name] or "") for name in ("profile", "data_root", "out")}


def run(options: argparse.Namespace, notebooks: list[Path], nursery: Nursery | None = None) -> None:
    """Run the notebooks one after the other, and list the figures and tables that they wrote.

    nursery: of their kernels; without one each imports everything for itself.  Raises Busy where another run computes
    the same profile in the same place.  A notebook that somebody runs by hand meanwhile does no harm: each file appears
    whole, and both would write the same.
    """
    name, home = options.results, options.out or ROOT
    copies, cache = (options.out or ROOT / ".cache") / "notebooks" / name, cache_folder(options.out, name)
    with alone(cache.with_name(f"{cache.name}.lock"), f"computes the {name} profile in {os.path.relpath(cache)}"):
        for place in (cache, copies, home / "figures" / name, home / "results" / name):
            tidy(place)
        _run(options, notebooks, home, copies, cache, nursery)


def _run(options: argparse.Namespace, notebooks: list[Path], home: Path, copies: Path, cache: Path,
         nursery: Nursery | None) -> None:
    started, since = time.monotonic(), time.time() - 2  # some file systems count in steps of two seconds
    results, figures = home / "results" / options.results, home / "figures" / options.results
    if options.force and cache.exists():
        print(f"--force: removing {os.path.relpath(cache)}")
        shutil.rmtree(cache)
    from_nothing = options.only is None and not cache.exists()  # else an earlier run has computed a part
    os.environ.pop("MPLBACKEND", None)  # a backend with windows would fail where there is no display
    os.environ["D3AD_WORKERS"] = options.workers  # for the notebooks
    os.environ |= ENVIRONMENT
    print(f"profile {options.results}; the executed notebooks go to {os.path.relpath(copies)}")
    done = Done(cache / "notebooks.json", options.settings)
    forecast = Forecast(*expected_minutes(options, notebooks, done))
    numbers = {source: number for number, source in enumerate(notebooks, start=1)}
    keys: dict[Path, str] = {}  # of each notebook as it was when it began

    def run_this(source: Path, group: list[Path]) -> "NotebookNode":
        line = f"[{numbers[source]}/{len(notebooks)}] {source.stem}"
        keys[source] = done.key(source)
        # bars of one notebook move at a time
        progress = Progress(sys.stderr, moving=source == group[0])
        # a notebook that the cache knows takes seconds as a rule; saving it after each cell would add a third of one
        return run_one(source, copies / source.name, parameters(options), line, forecast, nursery, progress,
                       together=len(group) > 1, save_each_cell=not done.knows(source))

    with FirstFigure(figures, started):
        for group in groups(notebooks, done.knows, options.networks_are_small):
            run_next = partial(run_this, group=group)
            if len(group) > 1:
                print(f"two at a time{forecast}: {', '.join(source.stem for source in group)}", flush=True)
            for source, executed, seconds in two_at_a_time(run_next, group):
                keep_minutes(results / "minutes.json", options.settings, source.stem, seconds / 60, from_nothing)
                done.note(source, keys[source])
                if options.update_notebooks:
                    from d3ad.study.running.clean_notebooks import write_clean
                    write_clean(executed, source)
    if from_nothing:
        keep_minutes(results / "minutes.json", options.settings, None, (time.monotonic() - started) / 60, True)
    files = [path for folder in (figures, results) for path in sorted(folder.rglob("*")) if path.is_file()]
    written = [path for path in files if path.stat().st_mtime >= since]
    print(f"figures and tables written: {len(written)}", *map(os.path.relpath, written), sep="\n  ")
    print(f"total: {elapsed(started)}")


class Done:
    """Which notebooks ran to their end with these settings, as a file of the cache says: they will only read it.

    A notebook that computes all the same, since somebody removed a part of the cache, does no harm beside another.
    """

    def __init__(self, file: Path, settings: str):
        self.file, self.settings = file, settings

    def key(self, source: Path) -> str:
        """A hash of the notebook's cells and the settings."""
        import nbformat
        cells = [cell.source for cell in nbformat.read(source, as_version=4).cells if cell.cell_type == "code"]
        return hashlib.sha256("\0".join([self.settings, *cells]).encode()).hexdigest()[:12]

    def kept(self) -> dict[str, str]:
        """The keys of the notebooks that ran."""
        return read_json(self.file) if self.file.exists() else {}

    def knows(self, source: Path) -> bool:
        """Whether this notebook ran as it is now."""
        return self.kept().get(source.stem) == self.key(source)

    def note(self, source: Path, key: str) -> None:
        """This notebook has run to its end, with that key when it began."""
        write_whole(self.file, json.dumps(self.kept() | {source.stem: key}, indent=1))


def expected_minutes(options: argparse.Namespace, notebooks: list[Path], done: Done
                     ) -> tuple[dict[str, float | None], float]:
    """Each notebook's minutes: those of an earlier run, or the committed ones, where the settings are the same; and
    what share of their sum the whole run took, since some go side by side.
    """
    known, share = {}, 1.0
    for home in dict.fromkeys((ROOT, options.out or ROOT)):  # what this run's own place knows counts last
        kept = kept_minutes(home / "results" / options.results / "minutes.json", options.settings)
        known |= kept["minutes"]
        one_by_one = sum(kept["minutes"].values())
        share = kept["total"] / one_by_one if kept.get("total") and one_by_one else share
    expected = {source.stem: CACHED_MINUTES if done.knows(source) else known.get(source.stem) for source in notebooks}
    return expected, share


def groups(notebooks: list[Path], knows, networks_are_small: bool) -> list[list[Path]]:
    """Which notebooks run at the same time, two of a group at once.

    Those that only read the cache, which stand side by side, go together.  One that computes has all cores to itself,
    or where networks are small a second one BESIDE it that needs other things of the cache.

    knows: whether a notebook only reads the cache.
    """
    found: list[list[Path]] = []
    by_number = {source.stem[:2]: source for source in notebooks if not knows(source)}
    second = {by_number[a]: by_number[b] for a, b in BESIDE if a in by_number and b in by_number and networks_are_small}
    for known, neighbours in groupby([source for source in notebooks if source not in second.values()], knows):
        sources = list(neighbours)
        found += [sources] if known else [[source, second[source]] if source in second else [source]
                                          for source in sources]
    return found


def two_at_a_time(run_next, notebooks: list[Path]):
    """(notebook, its executed copy, seconds) of each, in the order in which they end.  Where one fails, or at Ctrl-C,
    the others are stopped.
    """
    def run_timed(source: Path) -> tuple[Path, "NotebookNode", float]:
        began = time.monotonic()
        executed = run_next(source)
        return source, executed, time.monotonic() - began

    if len(notebooks) == 1:
        yield run_timed(notebooks[0])
        return
    pool = ThreadPoolExecutor(2)
    try:
        for future in as_completed([pool.submit(run_timed, source) for source in notebooks]):
            yield future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in psutil.Process().children(recursive=True):  # the kernels
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        raise
    pool.shutdown()


def run_one(source: Path, target: Path, values: dict, line: str, forecast: Forecast, nursery: Nursery | None,
            progress: Progress, together: bool, save_each_cell: bool) -> "NotebookNode":
    """Run one notebook under a line that names it and ends with its time.  together: another one runs beside it, so
    the line comes at its end.  save_each_cell: as in `execute`.
    """
    started = time.monotonic()
    if not together:
        print(f"{line}{forecast} ...", end="", flush=True)
    try:
        executed = execute(source, target, values, progress, nursery, save_each_cell)
    except NotebookError as error:
        raise NotebookError(f"{source.stem} failed after {elapsed(started)}: {error}") from None
    forecast.done(source.stem, (time.monotonic() - started) / 60)
    named = f"{line} ..." if together or progress.used else ""
    print(f"{named} {elapsed(started)}", flush=True)  # one call: another notebook may end at the same time
    return executed


def main(arguments: list[str] | None = None) -> int:
    """The command.  Its exit code: 0, 1 for a failed notebook, 2 for a wrong command, 130 for Ctrl-C."""
    try:
        options = parse(arguments)
        if options.normalise:
            from d3ad.study.running.clean_notebooks import read_notebook, write_clean
            for file in options.normalise:
                write_clean(read_notebook(file), Path(file.name))
        else:
            notebooks = check(options, ROOT / "notebooks")
            if options.update_notebooks:
                os.environ["TQDM_DISABLE"] = "1"  # read while the nursery imports
            with Nursery() as nursery:
                for source in notebooks:
                    check_parameters(source, parameters(options))
                say_costs(settings_of(options.profile)[0], parameters(options), notebooks)
                run(options, notebooks, nursery)
    except (UsageError, Busy) as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 2
    except NotebookError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:  # a full or read-only disk, a damaged file
        print(f"\nrun_all.sh: {explain(error) if isinstance(error, OSError) else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # it would print what became of the cell that ran
        print("\nstopped; the same command continues where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
