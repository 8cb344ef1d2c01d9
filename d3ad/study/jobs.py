"""Work on several runs at once: their detectors trained, what the cache lacks computed, by worker processes."""
import dataclasses

from d3ad import data
from d3ad.infra.devices import pick_device
from d3ad.infra.parallel import in_parallel
from d3ad.study.shared import shared_backbone, shared_codec, shared_of, shared_unet
from d3ad.study.workspace import Run


def prepare(runs: list[Run], variants: list[dict], keep_maps: bool = False) -> None:
    """Compute what the cache lacks of `numbers`, with `keep_maps` of `outcome`, for all runs and variants at once."""
    on_trained("measure", Run.measure, [(run, changes, keep_maps) for run in runs for changes in variants
                                        if not run.is_kept(changes, keep_maps)])


def on_trained(title: str, function, jobs: list[tuple]) -> None:
    """Call function(run, ...) for every job, in parallel, once the detectors of their runs are trained."""
    train(list({id(run): run for run, *_ in jobs}.values()))
    together(title, function, jobs)


def together(title: str, function, jobs: list[tuple]) -> None:
    """Call function(run, ...) for every job, in parallel."""
    _in_parallel(title, function, [(bare(run), *others) for run, *others in jobs])


def _in_parallel(title: str, function, jobs: list[tuple]) -> None:
    if jobs:
        in_parallel(title, function, jobs, pick_device(jobs[0][0].config.device))


def train(runs: list[Run]) -> None:
    """Train the detectors that the cache lacks, in parallel."""
    missing = [bare(run) for run in runs if not (run.folder / "detector").exists()]
    check_readable([run for run in missing if run.workspace.study.source != "synthetic"])
    folders = {shared_of(run).folder: run for run in missing}  # computing a folder's key draws all synthetic data
    parts = [(run, part, {}) for run in folders.values() for part in (shared_codec, shared_backbone)]
    _in_parallel("train autoencoder and features", _call, parts)  # finished ones are only read again
    started = [(run, shared_unet, {}) for run in folders.values() if run.workspace.study.start_steps]
    _in_parallel("train the UNet that all set out from", _call, started)
    _in_parallel("train detectors", _train, [(run,) for run in missing])


def _call(run: Run, function, *arguments) -> None:
    function(run, *arguments)


def _train(run: Run) -> None:
    run.ensure_trained()


def check_readable(runs: list[Run]) -> None:
    """Read every image and mask of these runs' datasets, before hours of training; one DataError with all problems."""
    problems = {}
    for dataset in {str(run.dataset): run.dataset for run in runs}.values():
        masks = [(dataset.masks, "test")] if any(sample.mask for sample in dataset.test) else []
        for read, split in ((dataset.images, "train"), (dataset.images, "test"), *masks):
            try:
                read(split, 8)
            except data.DataError as error:
                problems.update(dict.fromkeys(str(error).splitlines()))
    if problems:
        raise data.DataError("\n".join(problems))


def bare(run: Run) -> Run:
    """The run without what it has loaded, fit to travel to another process."""
    return dataclasses.replace(run)
