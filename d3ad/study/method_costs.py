"""What D3AD and the baselines cost on the same batch of images: seconds and memory, and Table 8 of them."""
import json
import statistics
import zlib

import pandas as pd
import torch
from tqdm import tqdm

from d3ad.baselines import Baseline, Resources, baseline_class, make
from d3ad.baselines.base import Budget
from d3ad.detector import D3AD
from d3ad.infra.devices import device_name, pick_device
from d3ad.infra.files import read_json, write_whole
from d3ad.speed import presets
from d3ad.speed.timing import timed
from d3ad.study.comparison import titles, version_of
from d3ad.study.jobs import train
from d3ad.study.shared import shared_backbone
from d3ad.study.workspace import Run, Workspace

VERSION = "5"  # of how costs are measured; another makes the cache's old


def speed(run: Run, names: list[str]) -> pd.DataFrame:
    """What D3AD and the baselines cost on one batch of the run's test images, one after the other in this process;
    cached.

    A row per method and round: method, round, seconds (per image), megabytes, batch_size, threads.  The baselines are
    trained for one step only, and predict as they do after the training that the profile gives them.
    """
    methods = ["D3AD", *names]
    study = run.workspace.study
    parts = [VERSION, device_name(pick_device(run.config.device)), run.config.hash("predict_batch"),
             *(version_of(run, name) for name in names)]
    key = zlib.crc32("|".join(parts).encode())
    file = run.folder / f"speed-{key:08x}.json"
    if not file.exists():
        images, batch = run.normal_images, run.images[:run.config.predict_batch]
        train([run])
        config, budget = run.config.replace(calibration_images=2), Budget(1, width=study.baseline_width)

        def fresh() -> D3AD:  # the run's own remembers what it has looked at
            return presets.load(run.folder / "detector", run.config.device)

        def fitted(name: str) -> Baseline:
            detector = fresh() if baseline_class(name).needs_detector else None
            baseline = make(name, Resources(config, shared_backbone(run, {}), detector, budget)).fit(images)
            if not study.baseline_images and not (baseline.on_pixels and study.baseline_minutes):
                baseline.as_if_trained()
            return baseline

        builders = {"D3AD": lambda: fresh().predict}
        for name in names:
            builders[name] = lambda name=name: fitted(name).predict
        about, rows = dict(batch_size=len(batch), threads=torch.get_num_threads()), []
        for name in tqdm(methods, "time per image"):
            cost = timed(builders[name], batch, pick_device(run.config.device))
            rows += [dict(method=name, round=i, seconds=seconds, megabytes=cost["megabytes"], **about)
                     for i, seconds in enumerate(cost["seconds"])]
        write_whole(file, json.dumps(rows))
    frame = pd.DataFrame(read_json(file))
    return frame.assign(method=frame["method"].replace({name: title for title, name in titles(names).items()}))


def table8(workspace: Workspace, measured: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Rows of Table 8 from `speed`: the median of the rounds as seconds per image, its inverse, memory."""
    rows = []
    for method, rounds in measured.groupby("method", sort=False):
        seconds = statistics.median(rounds["seconds"])
        rows.append(dict(dataset=workspace.title(dataset), category="Average", method=method, measured_fps=1 / seconds,
                         measured_seconds=seconds, measured_megabytes=rounds["megabytes"].iloc[0]))
    return pd.DataFrame(rows)
