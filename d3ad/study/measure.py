"""Baselines that are too long for a notebook: `python -m d3ad.study.measure --profile mvtec-cpu --data-root DIR`.

It measures the profile's `long_baselines`, one method and category after the other: what works on features first, then
what works on pixels, for `baseline_minutes` each.  It can be stopped at any time, and the same command goes on where it
was.  The numbers go into a table that outlives the cache (d3ad/study/long_runs.py), so that a day's work may be spread
over several; notebook 07 shows what stands there.
"""
import argparse
import sys

import torch

from d3ad.baselines import baseline_class, check_installed
from d3ad.infra.files import Busy, alone
from d3ad.speed.timing import keep_freed_memory
from d3ad.study import comparison
from d3ad.study.workspace import Run, Workspace, open_workspace


def jobs(workspace: Workspace, names: list[str], categories: list[str] | None = None) -> list[tuple[Run, str]]:
    """What is left to be measured, on all categories or on these, in this order: on features, with D3AD's networks, on
    pixels.

    Raises ValueError for a category that the profile doesn't have.
    """
    runs = workspace.runs()  # once: each reads its dataset for its fingerprint
    known = [run.category for run in runs]
    if unknown := sorted(set(categories or []) - set(known)):
        raise ValueError(f"no category {', '.join(unknown)} (allowed: {', '.join(known)})")

    def last(name: str) -> int:
        return 2 * baseline_class(name).on_pixels + baseline_class(name).needs_detector

    return [(run, name) for name in sorted(names, key=last) for run in runs
            if run.category in (categories or known)
            and comparison.is_meant_for(run, name) and not comparison.has_long(run, name)]


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m d3ad.study.measure", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="mvtec-cpu")
    parser.add_argument("--data-root", default="", help="the folder that holds the real dataset")
    parser.add_argument("--out", default="", help="cache and table go there; by default into this repository")
    parser.add_argument("--methods", nargs="+", help="by default the profile's long_baselines")
    parser.add_argument("--categories", nargs="+", help="by default all that the method is meant for")
    parser.add_argument("--list", action="store_true", help="say what is left, and measure nothing")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    try:
        workspace = open_workspace(options.profile, options.data_root, options.out)
        names = list(dict.fromkeys(options.methods or workspace.study.long_baselines))
        for name in names:
            check_installed(name)
            if name not in workspace.study.long_baselines:
                raise ValueError(f"{name} is not one of {workspace.name}'s long_baselines "
                                 f"({', '.join(workspace.study.long_baselines) or 'none'})")
        left = jobs(workspace, names, options.categories)
    except (ValueError, ImportError) as error:
        sys.exit(f"measure: {error}")
    of = ", ".join(f"{name} on {run.category}" for run, name in left)
    print(f"left to be measured: {len(left)} ({of})" if left else "all is measured")
    failed = 0
    for run, name in [] if options.list else left:
        try:
            with alone(comparison.file_of(run, name).with_suffix(".lock"), f"is measuring {name} on {run.category}"):
                comparison.measure([(run, name)])
                comparison.keep_long(run, name)
        except Busy as error:
            print(error, file=sys.stderr)  # and takes what is left
            continue
        except (FloatingPointError, OSError, ValueError, MemoryError, torch.OutOfMemoryError) as error:
            # the others may do better
            print(f"{name} on {run.category} failed: {error}", file=sys.stderr)
            failed = 1
            continue
        row = comparison.summary([run], [name]).iloc[0]
        numbers = " / ".join(f"{row[f'measured_{metric}']:.1f}" for metric in ("i_auroc", "p_auroc", "pro"))
        seen = f"{row['images']} of {row['images_asked']} images"
        print(f"{name} on {run.category}: {numbers}, {row['training']}, {seen}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
