"""Rehearse the visa profile without a GPU: full-size networks, few images, few steps, every notebook from 01 to 10.

    ./scripts/rehearse_paper.sh [--work DIR] [--docs FILE] [--narrow]

What is as in the paper's profile: the UNet (281 M weights), the autoencoder's shape, ResNet-34, batches of 30 images,
the official layout of VisA on disk, the notebooks, the runner.  What is small: one drawn category of 30 training and 2
test images, networks with random weights (so every number it yields means nothing), two training steps, two steps of
Algorithm 1, images of 128 pixels, an adaptation only where a notebook asks for one (with one epoch in the profile each
of the noised and guided variants would adapt anew).  One step at 256 pixels is taken by itself, for its time and its
memory.

With --narrow the networks are a few channels wide and images have 64 pixels: it tries the notebooks and the settings in
a fifth of the time, and measures nothing worth keeping.

The run is killed once, when the diffusion model of its detector is trained, and started again.
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from d3ad.infra.files import ROOT, write_whole

NOTEBOOKS = 10
BATCH = 30
# parts of a batch: as few as memory lets pass, since every part reads and adds up 281 M weights
PARTS = {256: 10, 128: 3}
SMALL = dict(image_size=128, train_epochs=2, accumulate=PARTS[128], adapt_epochs=0, num_steps=2, k=2,
             calibration_images=2, predict_batch=2, train_precision="float32", seeds=1, baseline_images=30,
             baseline_width=0.125)
NARROW = dict(image_size=64, unet_channels=[16, 32], unet_attention=[1], unet_groups=16)


def weights(folder: Path, narrow: bool) -> dict[str, str]:
    """Autoencoders of the shapes of Stable Diffusion's and TAESD, and a ResNet-34, random and saved; the settings that
    name them.
    """
    import torch
    from safetensors.torch import save_file

    from d3ad.autoencoders import AutoencoderKL, AutoencoderTiny
    from d3ad.infra.backbones import timm
    from d3ad.speed.benchmark.networks import STABLE_DIFFUSION
    torch.manual_seed(0)
    places = dict(autoencoder_weights=folder / "vae", tiny_weights=folder / "tiny",
                  backbone_weights=folder / "resnet34")
    if not places["autoencoder_weights"].exists():
        shape = STABLE_DIFFUSION | (dict(block_out_channels=(8,) * 4, norm_num_groups=4) if narrow else {})
        AutoencoderKL(**shape).save_pretrained(places["autoencoder_weights"])
    AutoencoderTiny().save_pretrained(places["tiny_weights"])
    places["backbone_weights"].mkdir(exist_ok=True)
    tensors = {name: value.contiguous() for name, value in timm.create_model("resnet34").state_dict().items()}
    save_file(tensors, places["backbone_weights"] / "model.safetensors")
    return {name: str(place) for name, place in places.items()}


def one_step() -> None:
    """One training step of the visa profile's UNet: 30 latents of images of 256 pixels, in parts."""
    import torch

    from d3ad import Config, training
    config = Config.profile("visa", train_steps=1, accumulate=PARTS[256], train_precision="float32")
    mean = torch.randn(BATCH, config.latent_channels, *[config.image_size // 8] * 2)
    training.train_diffusion(training.make_unet(config), mean, torch.full_like(mean, 0.1), config)


class Watched:
    """A command in a session of its own; its largest memory, with that of its children, in bytes."""

    def __init__(self, command: list[str], **options):
        self.started, self.peak, self.ended = time.monotonic(), 0, threading.Event()
        self.process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **options)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.ended.wait(0.5):
            used = 0
            for process in self.family():
                with contextlib.suppress(psutil.Error):
                    used += process.memory_info().rss
            self.peak = max(self.peak, used)

    def family(self) -> list[psutil.Process]:
        """Its processes that are alive."""
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def wait(self) -> tuple[float, int]:
        """(seconds, bytes) when it has ended.  Raises RuntimeError where it failed."""
        code = self.process.wait()
        self.ended.set()
        if code:
            raise RuntimeError(f"{' '.join(map(str, self.process.args))} ended with {code}")
        return time.monotonic() - self.started, self.peak

    def kill(self) -> None:
        """SIGKILL for all its processes, as when the power fails."""
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(family[1:], timeout=30)
        self.ended.set()


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def rehearse(work: Path, narrow: bool) -> dict:
    """Everything, in `work`; what was measured."""
    from d3ad.data import synthetic
    from d3ad.infra.devices import processor_name
    synthetic.write(work / "data", "visa", "board", BATCH, 1, 1)
    settings = json.dumps(SMALL | weights(work, narrow) | (NARROW if narrow else {}))
    code = f"import sys; sys.path[:0] = ['{ROOT}/scripts', '{ROOT}']; import rehearse_paper; rehearse_paper.one_step()"
    step = (0.0, 0) if narrow else Watched([sys.executable, "-c", code]).wait()
    print(f"one step of {BATCH} images of 256 pixels: {step[0]:.0f} s, {step[1] / 1e9:.1f} GB", flush=True)

    command = [sys.executable, "-m", "d3ad.study.runner", "--profile", "visa", "--data-root", str(work / "data"),
               "--out", str(work / "out")]
    environment = os.environ | {"D3AD_SET": settings}
    cache = work / "out" / "cache" / "visa-changed"
    first, state = Watched(command, env=environment), 0
    while first.process.poll() is None:
        found = list(cache.glob("visa-*/training/diffusion/training.safetensors"))
        if found:
            state = size(found[0])
            break
        time.sleep(0.5)
    else:
        raise RuntimeError("the run ended before it could be killed")
    first.kill()
    killed = time.monotonic() - first.started
    print(f"killed after {killed:.0f} s, with a training state of {state / 1e9:.2f} GB", flush=True)
    whole = Watched(command, env=environment).wait()
    minutes = json.loads((work / "out" / "results" / "visa-changed" / "minutes.json").read_text())["minutes"]
    assert len(minutes) == NOTEBOOKS, f"notebooks that ran: {', '.join(minutes)}"
    assert not list(cache.rglob("training*.safetensors")), "states of finished trainings are left"
    detector = next(cache.glob("visa-*/detector"))
    return dict(cores=psutil.cpu_count(), processor=processor_name(), step_seconds=step[0],
                step_bytes=step[1], seconds_until_kill=killed, seconds=killed + whole[0],
                bytes=max(first.peak, whole[1]), state_bytes=state, detector_bytes=size(detector),
                cache_bytes=size(cache), minutes={name: round(value, 1) for name, value in sorted(minutes.items())})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--narrow", action="store_true")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="rehearsal-"))
    work = work.expanduser().resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        measured = json.dumps(rehearse(work, options.narrow), indent=1)
    finally:
        if options.work is None:
            shutil.rmtree(work)
    print(measured)
    if options.docs:
        write_whole(options.docs, measured + "\n")


if __name__ == "__main__":
    main()
