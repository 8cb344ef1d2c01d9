"""Images per second of the reference implementation, the presets and two baselines; the cost of each part of D3AD.
"""
import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from d3ad.conditioning import pool_features
from d3ad.detector import D3AD
from d3ad.speed import presets
from d3ad.speed.benchmark import machine
from d3ad.speed.benchmark.networks import config_of, drawn_images, light_features, tiny_autoencoder, untrained
from d3ad.speed.benchmark.reference import Reference, fused
from d3ad.speed.timing import clock, keep_freed_memory, timed

IN_FLOAT32 = "fast, float32"  # where `fast` computes in bfloat16: as the baselines compute


def inference(size: str, batch: int = 16, rounds: int = 3) -> list[dict]:
    """One dict per preset or baseline, all on the same batch: seconds per image, images per second, speed-up over the
    reference, memory, each part's share.

    size: of `networks.SIZES`.  rounds: of each; one of the reference, which takes minutes.
    """
    config = config_of(size)
    detector, images = untrained(config), drawn_images(batch, config.image_size)
    about = machine.describe(detector.device) | dict(image_size=config.image_size, batch=batch)
    largest = machine.LARGEST[size]
    rates = {str(dtype)[6:]: machine.matmul_rate(detector.device, dtype, largest)
             for dtype in (torch.float32, torch.bfloat16)}
    about |= dict(matmul_gflops={name: round(rate) for name, rate in rates.items()},
                  copy_gb_per_s=round(machine.bandwidth(detector.device), 1))

    # before memory is kept: as PyTorch comes
    found = {}
    plain = timed(lambda: _keeping(Reference(detector).predict, found), images, detector.device, 1, first_images=1)
    rows = [about | dict(preset="reference", precision="float32", num_steps=config.num_steps) | _cost(plain, plain)]
    keep_freed_memory()
    ways = {"faithful": ("faithful", None), "fast": ("fast", None)}
    if presets.low_precision_pays(detector.device):
        ways[IN_FLOAT32] = ("fast", torch.float32)
    for way, (name, precision) in tqdm(ways.items(), "presets"):
        compiled = name == "faithful" and size == "paper" and detector.device.type == "cuda"
        made: list[D3AD] = []

        def build(name: str = name, precision: torch.dtype | None = precision, compiled: bool = compiled,
                  made: list = made) -> Callable[[Tensor], object]:
            made.append(presets.apply(copy.deepcopy(detector), name, tiny_autoencoder(), light=light_features()))
            # after its calibration: each batch size compiles anew
            made[0].networks = (presets.networks_of(made[0], name, compiled) if precision is None
                                else presets.FastNetworks(made[0], precision))
            return made[0].predict

        cost, accelerated = timed(build, images, detector.device, rounds), made[0]
        dtype = str(accelerated.networks.dtype)[6:]
        row = about | dict(preset=way, precision=dtype, num_steps=accelerated.config.num_steps,
                           compiled=compiled) | _cost(cost, plain)
        row["parts"] = parts(accelerated, presets.apply(detector, name) if compiled else accelerated, images,
                             rates[dtype])
        row["megabytes_one_image"] = round(timed(lambda: untrained(config).predict, images[:1], detector.device,
                                                 1)["megabytes"]) if name == "faithful" else None
        if name == "faithful":
            row["largest_difference"], row["same_steps"] = difference(accelerated, images, found)
        rows.append(row)
    for name, build in BASELINES.items() if config.image_size >= 256 else ():  # EfficientAD can't take less
        try:
            cost = timed(lambda: build(config.image_size, detector.device), images, detector.device, rounds)
        except ImportError as error:
            print(f"{name} is not measured: {error}")
            continue
        rows.append(about | dict(preset=name) | _cost(cost, plain))
    return rows


def _keeping(predict: Callable[[Tensor], dict], kept: dict) -> Callable[[Tensor], None]:
    """`predict` that leaves what it found in `kept`."""
    return lambda images: kept.update(predict(images))


def _cost(cost: dict, plain: dict) -> dict:
    seconds, reference = statistics.median(cost["seconds"]), statistics.median(plain["seconds"])
    return dict(seconds_per_image=seconds, images_per_second=1 / seconds, speedup=reference / seconds,
                megabytes=round(cost["megabytes"]))


def difference(detector: D3AD, images: Tensor, reference: dict[str, Tensor]) -> tuple[dict[str, float], float]:
    """Each map's largest difference from the reference's, as a share of its largest value, over the images with the
    same T-hat; and the share of these: rounding may move an image over the edge of a bin.

    reference: of `Reference.predict`.
    """
    prediction = detector.predict(images)
    same = prediction.t_hat == reference["t_hat"]
    measured = dict(latent=prediction.latent_map, feature=prediction.feature_map)
    measured["anomaly_map"] = fused(measured["latent"], measured["feature"], detector.config)
    largest = {name: float((value - reference[name])[same].abs().max() / reference[name].abs().max())
               for name, value in measured.items()}
    return largest, float(same.float().mean())


def parts(detector: D3AD, countable: D3AD, images: Tensor, rate: float) -> list[dict]:
    """What each part takes of one predict: calls, seconds and GFLOP per image, GFLOP/s, its share of `rate`, and FLOP
    per byte.

    countable: the same detector, not compiled: operations inside compiled code are not counted.
    The bytes are those that can't be avoided: the part's weights as stored, once per call, its inputs and outputs.
    """
    with machine.flop_counter() as counter, _watched(countable, counter.get_total_flops) as counted:
        countable.predict(images[:1])
    with _watched(detector, lambda: 0) as seen:
        total = clock(lambda: detector.predict(images))[0]
    count, rows = len(images), []
    for part, entry in seen.items():
        gflop = count * counted[part]["flops"] / 1e9  # every image costs the same
        rows.append(dict(part=part, calls=entry["calls"], seconds=entry["seconds"] / count, gflop=gflop / count,
                         gflops=gflop / entry["seconds"],
                         share_of_limit=gflop / entry["seconds"] / rate,
                         flop_per_byte=1e9 * gflop / max(entry["bytes"], 1)))
    features = pool_features(detector.networks.features(images.to(detector.device))[detector.config.dic_block])
    rows.append(dict(part="conditioning", calls=1,
                     seconds=clock(lambda: detector.conditioning.distances(features))[0] / count))
    known = sum(row["seconds"] for row in rows)
    return [*rows, dict(part="maps", calls=1, seconds=max(total / count - known, 0.0))]


@contextlib.contextmanager
def _watched(detector: D3AD, flops: Callable[[], int]) -> Iterator[dict]:
    """Inside the block, hooks on the detector's networks add each part's calls, seconds, FLOPs and bytes to a dict."""
    networks = detector.networks
    modules = dict(features=networks.backbone, encode=networks.codec.model.encoder, eps=networks.unet,
                   decode=networks.codec.model.decoder)
    seen = {part: dict(calls=0, seconds=0.0, flops=0, bytes=0) for part in modules}
    begun: dict = {}

    def now() -> float:
        if detector.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def begin(part: str) -> None:
        begun[part] = now(), flops()

    def end(part: str, module: torch.nn.Module, inputs: tuple, output) -> None:
        started, before = begun[part]
        tensors = [x for x in (*inputs, *(output if isinstance(output, (tuple, list)) else (output,)))
                   if isinstance(x, Tensor)]
        entry = seen[part]
        entry["seconds"] += now() - started
        entry["flops"] += flops() - before
        entry["calls"] += 1
        entry["bytes"] += sum(p.nbytes for p in module.parameters()) + sum(x.nbytes for x in tensors)

    hooks = []
    for part, module in modules.items():
        hooks.append(module.register_forward_pre_hook(lambda module, inputs, part=part: begin(part)))
        hooks.append(module.register_forward_hook(lambda module, inputs, output,
                                                  part=part: end(part, module, inputs, output)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _patchcore(image_size: int, device: torch.device) -> Callable[[Tensor], object]:
    """anomalib's PatchCore with its own backbone and a memory of 10 % of the patches of 200 images."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    model = PatchcoreModel(["layer2", "layer3"], pre_trained=False).eval()
    width = model.generate_embedding(model.feature_extractor(torch.zeros(1, 3, image_size, image_size))).shape[1]
    model.memory_bank = torch.randn(20 * (image_size // 8) ** 2, width)
    model.to(device)
    return lambda images: torch.no_grad()(model)(images.to(device))


def _efficientad(image_size: int, device: torch.device) -> Callable[[Tensor], object]:
    """anomalib's EfficientAD, small."""
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel
    model = EfficientAdModel().eval().to(device)
    return lambda images: torch.no_grad()(model)((images.to(device) + 1) / 2)


BASELINES = {"PatchCore": _patchcore, "EfficientAD": _efficientad}
