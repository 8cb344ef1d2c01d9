"""Images per second of the plain order of work, of the presets and of two rivals, and what each part of D3AD takes."""
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from d3ad.detector import D3AD
from d3ad.speed.benchmark import machine
from d3ad.speed.benchmark.naive import Naive, fused
from d3ad.speed.benchmark.networks import config_of, drawn_images, tiny_autoencoder, untrained
from d3ad.speed.timing import keep_freed_memory, timed

PARTS = ("features", "encode", "conditioning", "eps", "decode")  # of D3AD.predict; what remains are maps


def inference(size: str, batch: int = 16, naive_images: int = 2, rounds: int = 2) -> list[dict]:
    """One dict per preset or rival: seconds per image, images per second, speed-up over the plain order, memory, each part's share.

    size: of `networks.SIZES`.  naive_images: the plain order is timed on so many of the batch.
    """
    config = config_of(size)
    detector, images = untrained(config), drawn_images(batch, config.image_size)
    about = machine.describe(detector.device) | dict(image_size=config.image_size, batch=batch)
    rates = {str(dtype)[6:]: machine.matmul_rate(detector.device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    about |= dict(matmul_gflops={name: round(rate) for name, rate in rates.items()}, copy_gb_per_s=round(machine.bandwidth(detector.device), 1))

    plain = timed(lambda: Naive(detector).predict, images[:naive_images], rounds)  # before memory is kept: as PyTorch comes
    reference = Naive(detector).predict(images[:naive_images])
    rows = [about | dict(preset="naive", batch=1) | _cost(plain, plain)]
    keep_freed_memory()
    compiled = size == "paper" and detector.device.type == "cuda"
    for name in tqdm(("faithful", "fast"), "presets"):
        found = detector.with_preset(name, tiny_autoencoder())
        found._set_networks(compiled and name == "faithful")  # after its calibration: each size of a batch is compiled anew
        cost = timed(lambda: found.predict, images, rounds)
        dtype = str(found.networks.dtype)[6:]
        row = about | dict(preset=name, precision=dtype, num_steps=found.config.num_steps,
                                 compiled=compiled and name == "faithful") | _cost(cost, plain)
        row["parts"] = parts(found, detector.with_preset(name, found.codec), images, rates[dtype])
        row["megabytes_one_image"] = round(timed(lambda: untrained(config).predict, images[:1], 1)["megabytes"]) if name == "faithful" else None
        if name == "faithful":
            row["largest_difference"] = difference(found, images, reference)
        rows.append(row)
    for name, build in RIVALS.items() if config.image_size >= 256 else ():  # EfficientAD can't take less
        with contextlib.suppress(ImportError):
            rows.append(about | dict(preset=name) | _cost(timed(lambda: build(config.image_size), images, rounds), plain))
    return rows


def _cost(cost: dict, plain: dict) -> dict:
    seconds, naive = statistics.median(cost["seconds"]), statistics.median(plain["seconds"])
    return dict(seconds_per_image=seconds, images_per_second=1 / seconds, speedup=naive / seconds, megabytes=round(cost["megabytes"]))


def difference(detector: D3AD, images: Tensor, reference: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of each map from the plain order's, as a share of the map's largest value; T-hat must be equal.

    reference: of `Naive.predict`, for the first of the images.
    """
    prediction, count = detector.predict(images), len(reference["t_hat"])
    assert torch.equal(prediction.t_hat[:count], reference["t_hat"])
    found = dict(latent=prediction.latent_map[:count], feature=prediction.feature_map[:count])
    found["anomaly_map"] = fused(found["latent"], found["feature"], detector.config)
    return {name: float((value - reference[name]).abs().max() / reference[name].abs().max()) for name, value in found.items()}


def parts(detector: D3AD, countable: D3AD, images: Tensor, rate: float) -> list[dict]:
    """What each part takes of one predict: calls, seconds and GFLOP per image, GFLOP/s, its share of `rate`, and FLOP per byte.

    countable: the same detector, not compiled: operations inside compiled code are not counted.
    The bytes are those that can't be avoided: the part's weights as stored, once per call, its inputs and outputs.
    """
    with machine.flop_counter() as counter, _watched(countable, lambda: counter.get_total_flops()) as flops:
        countable.predict(images[:1])
    with _watched(detector, lambda: 0) as seen:
        started = time.perf_counter()
        detector.predict(images)
        total = time.perf_counter() - started
    count, found = len(images), []
    for part in PARTS:
        seconds, calls = seen[part]["seconds"], seen[part]["calls"]
        gflop = count * flops[part]["flops"] / 1e9  # every image costs the same
        found.append(dict(part=part, calls=calls, seconds=seconds / count, gflop=gflop / count, gflops=gflop / seconds,
                          share_of_limit=gflop / seconds / rate, flop_per_byte=1e9 * gflop / max(seen[part]["bytes"], 1)))
    known = sum(part["seconds"] for part in found)
    return [*found, dict(part="maps", calls=1, seconds=total / count - known)]


@contextlib.contextmanager
def _watched(detector: D3AD, flops: Callable[[], int]) -> Iterator[dict]:
    """Inside the block, each part of the detector's predict adds its calls, seconds, FLOPs and bytes to a dict."""
    seen = {part: dict(calls=0, seconds=0.0, flops=0, bytes=0) for part in PARTS}
    networks, dic = detector.networks, detector.conditioning
    weights = dict(features=networks.backbone, encode=networks.codec, eps=networks.unet, decode=networks.codec)

    def watch(part: str, call):
        size = sum(p.nbytes for p in weights[part].parameters()) if part in weights else 0
        size = size / 2 if part in ("encode", "decode") else size  # half an autoencoder each

        def watched(*inputs):
            before, started = flops(), time.perf_counter()
            result = call(*inputs)
            if detector.device.type == "cuda":
                torch.cuda.synchronize()
            entry = seen[part]
            entry["seconds"] += time.perf_counter() - started
            entry["flops"] += flops() - before
            entry["calls"] += 1
            outputs = result.values() if isinstance(result, dict) else result if isinstance(result, tuple) else (result,)
            entry["bytes"] += size + sum(x.nbytes for x in (*inputs, *outputs) if isinstance(x, Tensor))
            return result
        return watched

    targets = [(networks, part, part) for part in PARTS if part != "conditioning"] + [(dic, "distances", "conditioning")]
    try:
        for holder, method, part in targets:
            object.__setattr__(holder, method, watch(part, getattr(holder, method)))
        yield seen
    finally:
        for holder, method, _ in targets:
            object.__delattr__(holder, method)


def _patchcore(image_size: int) -> Callable[[Tensor], object]:
    """anomalib's PatchCore with its own backbone and a memory of 10 % of the patches of 200 images."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    model = PatchcoreModel(["layer2", "layer3"], pre_trained=False).eval()
    width = model.generate_embedding(model.feature_extractor(torch.zeros(1, 3, image_size, image_size))).shape[1]
    model.memory_bank = torch.randn(20 * (image_size // 8) ** 2, width)
    return torch.no_grad()(model)


def _efficientad(image_size: int) -> Callable[[Tensor], object]:
    """anomalib's EfficientAD, small."""
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel
    model = EfficientAdModel().eval()
    return lambda images: torch.no_grad()(model)((images + 1) / 2)


RIVALS = {"PatchCore": _patchcore, "EfficientAD": _efficientad}
