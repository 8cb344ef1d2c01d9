"""Writing the folder of a detector, reading one that may come from anyone, and the state of a training.

Nothing in it is ever run: weights are safetensors, never pickles, settings are JSON, and nothing is fetched.  What
doesn't fit is refused in one line that names the file, before memory is taken for it.
"""
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn as nn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from d3ad.infra.files import load_tensors, read_json, replacing, save_tensors, tidy, write_whole

FORMAT = 1  # of the folder; raised when an older d3ad couldn't read it
# settings that detectors of this format may still carry: they belonged to a study, or exist no longer
RETIRED = frozenset((
    "source", "datasets", "categories", "drawn_counts", "split", "seeds", "spread_categories", "rivals", "rival_steps",
    "rival_width", "rival_spread_categories"))
# what these detectors were trained with, where a setting was not one yet
EARLIER = {"unet_groups": 16, "unet_resampling": "conv"}
WEIGHTS = "diffusion_pytorch_model.safetensors"  # diffusers' name
STATE, PREVIOUS = "training.safetensors", "training.previous.safetensors"  # of a training: its newest, the one before
MOST = {"layers": 64, "depth": 64, "blocks": 64}  # of what makes a loop; any other number in a network's config: 16,384


def check_replaceable(folder: Path) -> None:
    """Raise FileExistsError where `save` would replace something else than a saved detector, or can't replace it."""
    if not folder.name:
        raise FileExistsError(f"{folder} has no name of its own: choose another folder")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not _is_detector(folder):
        raise FileExistsError(f"{folder} exists and is not a saved detector, so it is not replaced: choose another "
                              "folder")
    if foreign := _foreign(folder):
        raise FileExistsError(f"{folder} also holds {foreign}, so it is not replaced: choose another folder, or move "
                              "that away")


def _is_detector(folder: Path) -> bool:
    """Whether a folder holds a saved detector, of whatever version."""
    try:
        settings = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and {"format", "config"} <= set(settings)


def _foreign(folder: Path) -> str | None:
    """The path below a saved detector's folder of something that `save` didn't write; hidden files don't count."""
    written = {"config.json", "README.md", "model.safetensors", WEIGHTS}
    for file in sorted(folder.rglob("*")):
        below = file.relative_to(folder)
        if not below.name.startswith(".") and not (file.is_dir() and len(below.parts) == 1) and (
                below.name not in written or len(below.parts) > 2):
            return below.as_posix()
    return None


def save(folder: Path, models: dict, parts: dict[str, tuple[dict[str, Tensor], dict]], settings: dict,
         card: str = "") -> Path:
    """Write a detector in one go: a folder per part, config.json, and README.md where there is a `card`.

    models: those of diffusers, which write themselves.  parts: the others, tensors and config.  settings: ready for
    JSON.  The folder appears only when it is complete; an older detector of that name is replaced, and lost at no
    moment.  Raises FileExistsError where the folder holds something else.
    """
    check_replaceable(folder)
    with replacing(folder) as unfinished:
        for name, model in models.items():
            model.save_pretrained(unfinished / name)
        for name, (tensors, config) in parts.items():
            (unfinished / name).mkdir()
            stored = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
            save_file(stored, unfinished / name / "model.safetensors")
            (unfinished / name / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        (unfinished / "config.json").write_text(json.dumps({"format": FORMAT} | settings, indent=1), encoding="utf-8")
        if card:
            (unfinished / "README.md").write_text(card, encoding="utf-8")
    return folder


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Re-raise a ValueError, TypeError or KeyError of the block as a ValueError that begins with `file`, unless its
    text already names that folder.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        if str(file.parent) in str(error):
            raise
        raise ValueError(f"{file}: {' '.join(str(error).split())}") from None


def read_settings(folder: Path) -> dict:
    """The config.json of a saved detector.

    Raises FileNotFoundError where there is none, ValueError where it is damaged, or of another program or version.
    """
    if not folder.exists():
        tidy(folder.parent, folder.name)  # a save that was killed between its two renames
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no saved detector: config.json is missing")
    settings = read_json(file)
    if not isinstance(settings, dict) or not {"format", "config", "autoencoder", "losses"} <= set(settings) \
            or not isinstance(settings["config"], dict):
        raise ValueError(f"{file} is not of a saved detector")
    if settings["format"] != FORMAT:
        raise ValueError(f"{file} has format {settings['format']!r}, this version reads {FORMAT}: train the detector "
                         "anew, or use the version that saved it")
    if not isinstance(settings.get("preset", ""), str):
        raise ValueError(f"{file}: preset must be text; got {settings['preset']!r}")
    losses = settings["losses"]
    if not isinstance(losses, dict) or not all(isinstance(part, list) and all(isinstance(x, (int, float)) for x in part)
                                               for part in losses.values()):
        raise ValueError(f"{file}: losses must be lists of numbers")
    return settings


def known_settings(values: dict) -> dict:
    """The settings of a saved detector as this version names them.

    Raises ValueError for a UNet whose attentions differ in their number of heads, as once could be.
    """
    known = {name: value for name, value in values.items() if name not in RETIRED}
    if isinstance(known.get("standardise"), bool):  # both kinds of maps, or none
        known["standardise"] = ["latent", "feature"] * known["standardise"]
    if (width := known.pop("unet_head_dim", None)) is None:
        return known
    channels = known["unet_channels"]
    try:
        heads = {channels[level] // width for level in {*known["unet_attention"], len(channels) - 1}}
    except (IndexError, ZeroDivisionError):
        raise ValueError("unet_head_dim and unet_attention don't fit unet_channels") from None
    if len(heads) > 1:
        raise ValueError("unet_head_dim gives its levels different numbers of heads, which this version doesn't build: "
                         "train the detector anew")
    return EARLIER | {"unet_heads": heads.pop()} | known


def read_tensors(file: Path, *names: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises FileNotFoundError where it is missing, ValueError where it is something else, lacks one of `names`, or holds
    a value that isn't finite.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: the saved detector is incomplete")
    try:
        tensors = load_file(file)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a safetensors file, or damaged ({error})") from None
    if missing := sorted(set(names) - set(tensors)):
        raise ValueError(f"{file}: no {', '.join(missing)} in it")
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{file}: {broken[0]} holds values that are NaN or infinite")
    return tensors


def load_network(file: Path, make: Callable[[], nn.Module]) -> nn.Module:
    """The network that make() builds, with a file's weights, ready to predict; ValueError where they don't fit."""
    model = _in_memory(check_size(file, make)).eval()
    try:
        model.load_state_dict(read_tensors(file))
    except RuntimeError:
        raise ValueError(f"{file}: its tensors are not those of the network that config.json describes") from None
    return model


def empty(make: Callable[[], nn.Module]) -> nn.Module:
    """The network that make() builds, to be filled by `load_state_dict`: no weights are drawn to be thrown away.

    Raises ValueError where it has values that `load_state_dict` doesn't fill.
    """
    return _in_memory(_outline(make))


def _outline(make: Callable[[], nn.Module]) -> nn.Module:
    """The network that make() builds, shapes without values."""
    with torch.device("meta"):
        return make()


def _in_memory(network: nn.Module) -> nn.Module:
    """An outline with room for its values; raises as `empty` does."""
    stored = network.state_dict()
    if others := [name for name, _ in network.named_buffers() if name not in stored]:
        raise ValueError(f"{', '.join(others)} would stay empty")
    return network.to_empty(device="cpu")


def check_size(file: Path, make: Callable[[], nn.Module]) -> nn.Module:
    """Raise ValueError, before it takes memory, where make()'s network has many more values than the file; returns its
    outline.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: the saved detector is incomplete")
    network = _outline(make)
    expected = sum(parameter.numel() for parameter in network.parameters())
    try:
        with safe_open(file, "pt") as stored:
            names = stored.keys()  # it can't be walked through itself
            held = sum(torch.Size(stored.get_slice(name).get_shape()).numel() for name in names)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a safetensors file, or damaged ({error})") from None
    if expected > 1.1 * held:
        raise ValueError(f"{file} holds {held:,} values, and config.json describes a network of {expected:,}")
    return network


def check_network(folder: Path, kind: type) -> None:
    """Raise where a folder in diffusers' convention holds another class than `kind`, or too few weights for it."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: the saved detector is incomplete")
    config = read_json(file)
    if not isinstance(config, dict) or config.get("_class_name") != kind.__name__:
        raise ValueError(f"{file} does not describe the class {kind.__name__}")
    if "quantization_config" in config or "auto_map" in config:
        raise ValueError(f"{file}: quantization_config and auto_map are not supported")
    for key, value in config.items():
        most = next((most for word, most in MOST.items() if word in key), 16_384)
        items = value if isinstance(value, list) else [value]
        if len(items) > 64 or any(isinstance(item, (int, float)) and not -1 <= item <= most for item in items):
            raise ValueError(f"{file}: {key} is out of range")
    scale = config.get("scaling_factor", 1)
    if not isinstance(scale, (int, float)) or scale <= 0:
        raise ValueError(f"{file}: scaling_factor must be above 0; got {scale!r}")
    try:
        check_size(folder / WEIGHTS, lambda: kind.from_config(config))
    except (TypeError, RuntimeError, AttributeError, ZeroDivisionError, NotImplementedError) as error:
        raise ValueError(f"{file} describes no {kind.__name__} ({type(error).__name__})") from None


def claim(folder: Path, settings: str, images: Tensor, is_first: bool, given: Sequence[nn.Module] = ()) -> None:
    """Note in `folder`, which need not exist, what the training states in it are of: a fit goes on with its own only.

    settings: those that they hang on.  images: (N, C, H, W), trained on.  is_first: of several processes one writes.
    given: networks that the training takes as they are, or sets out from.
    Raises ValueError where the folder holds states of other images, settings or networks.
    """
    digest = hashlib.sha256(settings.encode())
    for image in images:
        digest.update(image.contiguous().numpy())
    for network in given:
        for value in network.state_dict().values():
            digest.update(value.detach().cpu().numpy().tobytes())
    file, key = folder / "trained_on.json", digest.hexdigest()[:12]
    if not file.exists():
        if is_first:
            write_whole(file, json.dumps(key))
    elif read_json(file) != key:
        raise ValueError(f"{folder} holds training states of other images, settings or networks: remove it, or give "
                         "another folder")


def keep_training(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict | None,
                  losses: list) -> None:
    """Write a training's state: one safetensors file, with the losses (their number is the step) in its header.

    The state before it stays, in case this one is damaged.  It takes its other name first, so that one of the two is
    whole at any moment, and no more than two are on the disk.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in (average or {}).items()}
    tensors |= {f"optimizer.{i}.{k}": v for i, state in optimizer.state_dict()["state"].items()
                for k, v in state.items()}
    with contextlib.suppress(FileNotFoundError):
        (folder / STATE).replace(folder / PREVIOUS)
    save_tensors(folder / STATE, tensors, {"losses": losses})


def restore_training(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer,
                     average: dict | None) -> list[float]:
    """Load what `keep_training` wrote last; the losses so far, none where there is nothing.

    Where the newest state is damaged, or was never written to its end, the one before it is loaded.  Raises ValueError
    where neither is whole.
    """
    found = _newest_state(folder)
    if found is None:
        return []
    tensors, about = found
    parts: dict[str, dict] = {"model": {}, "average": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    model.load_state_dict(parts["model"])
    if average is not None:
        average.update({k: v.to(average[k]) for k, v in parts["average"].items()})
    moments_of: dict[int, dict] = {}
    for key, value in parts["optimizer"].items():
        index, name = key.split(".", 1)
        moments_of.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments_of})
    # fused steps walk memory: moments must lie as their parameter does
    for parameter, moments in optimizer.state.items():
        moments.update({k: torch.empty_like(parameter).copy_(v)
                        for k, v in moments.items() if v.shape == parameter.shape})
    return about["losses"]


def _newest_state(folder: Path) -> tuple[dict[str, Tensor], dict] | None:
    """The newest whole state of a training, tensors and header, None where there is none; prints which one is passed
    over.
    """
    newest, previous = folder / STATE, folder / PREVIOUS
    try:
        if newest.exists():
            return load_tensors(newest)
    except ValueError:
        if not previous.exists():
            raise
        state = load_tensors(previous)
        print(f"{newest} is damaged and removed: the training goes on from the state before it, {previous}, at step "
              f"{len(state[1]['losses'])}", flush=True)
        newest.unlink(missing_ok=True)  # or it would take the place of the whole one
        return state
    return load_tensors(previous) if previous.exists() else None


def weights_file(path: str, name: str = "model.safetensors") -> Path:
    """The safetensors file at `path`, a file or a folder that holds `name`; FileNotFoundError says what is missing.

    Raises ValueError for a file of another kind: a pickle would run what its maker likes.
    """
    file = Path(path).expanduser()
    file = file / name if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file}: put {name} there, or give another folder")
    if file.suffix != ".safetensors":
        raise ValueError(f"{file} must be a safetensors file")
    return file
