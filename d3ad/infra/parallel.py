"""Work spread over processes: on a CPU each computes with one thread, which is faster than many threads on small
networks, and the numbers don't depend on how many cores there are.

With D3AD_WORKERS=ray (`run_all.sh --workers ray`) the processes are those of a Ray cluster, at RAY_ADDRESS or on this
machine.  Jobs write to the cache, so its folder must be one that all machines share.
"""
import contextlib
import multiprocessing
import os
import threading
import time
import warnings
from functools import lru_cache

import joblib
import psutil
import torch
from tqdm import tqdm

WORKER_MEMORY = 2e9  # bytes that a worker process needs
GPU_MEMORY = 16e9    # of a GPU: the paper's training takes 11, its prediction 8


def in_parallel(title: str, function, jobs: list[tuple], device: torch.device) -> None:
    """Call function(*job) for every job: in worker processes, on a CPU of one thread each, or by Ray.

    A job's first element is its run, which must be hashable.  A worker keeps what its last run loaded, so jobs of one
    run are bundled (`bundles`).  device: what the jobs compute on.
    """
    if not jobs:
        return
    if os.environ.get("D3AD_WORKERS") == "ray":
        calls = _by_ray(function, jobs, device)
    else:
        workers = min(len(jobs), num_workers(device))
        workers_end_with_us = dict(initializer=_end_with, initargs=(os.getpid(),))
        calls = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", **workers_end_with_us)(
            joblib.delayed(_one_by_one)(function, bundle, device) for bundle in bundles(jobs, workers))
    with warnings.catch_warnings(), tqdm(desc=title, total=len(jobs)) as bar:
        # joblib replaces a process that has grown: here by what it remembers
        warnings.filterwarnings("ignore", "A worker stopped")
        for done in calls:
            bar.update(done)


def bundles(jobs: list[tuple], workers: int) -> list[list[tuple]]:
    """Jobs of one run in one bundle, as far as that keeps all workers busy: what a run has loaded is loaded once.

    The runs that are left where the others are spread evenly, fewer than there are workers, are cut into `workers`
    parts each.
    """
    of_run: dict = {}
    for job in jobs:
        of_run.setdefault(job[0], []).append(job)
    runs = list(of_run.values())
    whole = len(runs) - len(runs) % workers
    parts = [run[i * len(run) // workers:(i + 1) * len(run) // workers] for run in runs[whole:] for i in range(workers)]
    return runs[:whole] + [part for part in parts if part]


def _by_ray(function, jobs: list[tuple], device: torch.device):
    """Yields 1 for each job as it finishes; a job whose worker died is run again, up to three times.

    joblib's own Ray backend keeps workers that are not replaced when they die.
    Raises ImportError where Ray isn't installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ImportError('workers "ray" takes Ray, which is not installed: pip install "d3ad[cluster]"') from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="warning", include_dashboard=False)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, memory=WORKER_MEMORY, max_retries=3)(_one_by_one)
    pending = [task.remote(function, [job], device) for job in jobs]
    while pending:
        done, pending = ray.wait(pending)
        yield ray.get(done[0])


def _one_by_one(function, jobs: list[tuple], device: torch.device) -> int:
    """Do some jobs, in a worker process or, where there is one worker only, in this; returns how many."""
    if device.type == "cpu":
        torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        if multiprocessing.parent_process() is not None:
            # several processes' bars would be drawn over each other
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        for run, *others in jobs:
            function(_loaded(run), *others)
    return len(jobs)


def _end_with(parent: int) -> None:
    """Have this worker end when the process that started it does, however that ends: joblib's waits five minutes for
    more work.

    parent: that process's number, told by itself: it may have ended before this worker could ask.
    """
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=1)
def _loaded(run):
    """The run of this process's last job with all it has loaded, where this is the same."""
    return run


def num_workers(device: torch.device) -> int:
    """Processes to compute with: the cores, at most 8, as far as memory allows.

    A large GPU is shared: one process leaves it idle while it starts kernels and computes metrics.
    """
    fitting = int(psutil.virtual_memory().available // WORKER_MEMORY)
    if device.type == "cuda":
        fitting = min(fitting, int(torch.cuda.mem_get_info(device)[0] // GPU_MEMORY))
    elif device.type != "cpu":
        return 1
    return max(1, min(joblib.cpu_count(), 8, fitting))
