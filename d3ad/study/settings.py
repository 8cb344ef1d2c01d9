"""Study: what a study needs beside the method's settings: which data, which seeds, which baselines, and their budgets.

It is the table [study] of a profile's TOML file; the method's own settings stand above it (d3ad/config.py).
"""
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from d3ad.config import ADAPTATION, DIFFUSION, PREDICTION, Config
from d3ad.infra.files import ROOT
from d3ad.infra.profiles import profile_names, read_profile
from d3ad.infra.settings import Settings, setting

BACKBONES = {"tf_efficientnet_lite0": "EfficientNet-Lite0", "resnet18": "ResNet-18", "resnet34": "ResNet-34"}


@dataclass(frozen=True)
class Study(Settings):
    """Settings of a study; immutable.  Raises ValueError, naming the field, for a value that is not allowed."""

    # drawn and written to disk first; under a data root; from pip
    source: str = setting("disk", allowed=("synthetic", "disk", "package"))
    datasets: tuple[str, ...] = setting(())                   # of d3ad.data.NAMES
    categories: tuple[str, ...] = setting(())        # empty: every category that is found
    # normal for training, normal and anomalous for test, where drawn
    counts: tuple[int, ...] = setting((0, 0, 0), allowed=(0, 100_000))
    split: str = setting("random", allowed=("random", "by_tile"))  # magnetic tiles only
    seeds: int = setting(1, allowed=(1, 100))                # how many seeds the spreads are taken over
    # looked at while settings were chosen: no claim is tested on them
    tuning_seeds: tuple[int, ...] = setting((), allowed=(0, 2 ** 31 - 1))
    spread_categories: tuple[str, ...] = setting(())  # the categories that get the further seeds; empty: all
    baselines: tuple[str, ...] = setting(())         # which are measured (d3ad/baselines)
    # too long for a notebook: measured by python -m d3ad.study.measure, shown where it has done so
    long_baselines: tuple[str, ...] = setting(())
    baseline_images: int = setting(0, allowed=(0, 1_000_000_000))  # seen in training, at most; 0: all asked for
    # of training of a method that works on pixels, at most; 0: no limit
    baseline_minutes: float = setting(0.0, allowed=(0.0, 100_000.0))
    baseline_pixel_categories: tuple[str, ...] = setting(())  # on which such a method is measured; empty: on all
    baseline_width: float = setting(1.0, allowed=(0.01, 1.0))  # of the channels of their own networks
    # those of `spread_categories` on which they get further seeds
    baseline_spread_categories: tuple[str, ...] = setting(())
    # how many weights on the way of its training the first run keeps, to be compared on validation images
    compared_checkpoints: int = setting(0, allowed=(0, 100))
    # training steps of a UNet on the normal images of all categories, from which each category's own sets out; 0: each
    # from random weights, as in the paper
    start_steps: int = setting(0, allowed=(0, 1_000_000))
    # training steps of each category's own UNet then, in place of `train_steps`
    own_steps: int = setting(0, allowed=(0, 1_000_000))
    # what a reader has to know of every number; stands below the notebooks' header and in each figure's stamp
    label: str = setting("")
    # category -> settings of the method that differ there
    per_category: dict = field(default_factory=dict, hash=False, metadata=dict(stage="", allowed=None))

    def _check_together(self) -> None:
        free = Config.names(DIFFUSION, ADAPTATION, PREDICTION)  # what categories share is trained once for all
        for category, changes in self.per_category.items():
            if not isinstance(changes, dict) or not set(changes) <= set(free):
                raise ValueError(f"per_category: {category} must be a table of settings of the diffusion, the "
                                 f"adaptation or the prediction; got {changes!r}")
            if self.start_steps and {"train_steps", "train_epochs"} & set(changes):
                raise ValueError(f"per_category: {category}: train_steps and train_epochs change nothing beside "
                                 "start_steps")
        if bool(self.start_steps) != bool(self.own_steps):
            raise ValueError(f"start_steps ({self.start_steps}) and own_steps ({self.own_steps}) go together: set "
                             "both, or neither")
        if len(self.counts) != 3:
            raise ValueError("counts must have three numbers: training normal, test normal, test anomalous")

    def hashed(self) -> dict:
        """As `to_dict`, without the two settings of a start where there is none: results from before they existed are
        still of these settings.
        """
        new = () if self.start_steps else ("start_steps", "own_steps")
        return {name: value for name, value in self.to_dict().items() if name not in new}

    def differs_by_category(self, *names: str) -> bool:
        """Whether some category has a value of its own for one of these settings."""
        return any(name in own for own in self.per_category.values() for name in names)

    @classmethod
    def profile(cls, name: str, /, **changes) -> "Study":
        """The named profile's table [study], with `changes` on top.  ValueError for an unknown profile or key."""
        return cls.from_dict({**read_profile(name).get("study", {}), **changes})


def features_in_words(config: Config) -> str:
    """The network that gives the features, and where its weights come from: "EfficientNet-Lite0, ImageNet"."""
    name = BACKBONES.get(config.backbone.split(".")[0], config.backbone)
    return f"{name}, {'trained here' if config.backbone_weights == 'none' else 'ImageNet'}"


def has_papers_unet(config: Config) -> bool:
    """Whether a profile has the paper's UNet, which takes a GPU; the others have small ones, for a CPU."""
    return config.unet_channels == Config.unet_channels


def training_in_words(config: Config, study: Study) -> str:
    """How long a profile trains its diffusion model: "1000 steps", "300 epochs"."""
    if study.start_steps:
        return f"{study.start_steps} steps on all categories, {study.own_steps} on each"
    if study.differs_by_category("train_epochs", "train_steps"):
        return "epochs by category"
    return f"{config.train_steps} steps" if config.train_steps else f"{config.train_epochs} epochs"


def study_profiles() -> tuple[str, ...]:
    """The names of the profiles that name a dataset, the quickest first."""
    named = [name for name in profile_names() if Study.profile(name).datasets]
    return tuple(sorted(named, key=lambda name: (name != "smoke", name != "demo", name)))


def settings_hash(config: Config, study: Study) -> str:
    """12 hex digits of all that a study's numbers depend on, of the method and of the study."""
    return hashlib.sha256((config.hash() + study.hash(*study.hashed())).encode()).hexdigest()[:12]


def cache_folder(out: Path | None, name: str) -> Path:
    """Where the cache of a profile lies: below `out`, or hidden in the checkout."""
    return (out / "cache" if out else ROOT / ".cache") / name


def tried_settings() -> dict:
    """The settings in D3AD_SET, as JSON such as {"t_max": 40}: to try them without editing a profile.  Raises
    ValueError.
    """
    try:
        tried = json.loads(os.environ.get("D3AD_SET") or "{}")
    except ValueError as error:
        raise ValueError(f'D3AD_SET must be JSON, such as {{"t_max": 40}} ({error})') from None
    if not isinstance(tried, dict):
        raise ValueError(f'D3AD_SET must be JSON with names, such as {{"t_max": 40}}; got {tried!r}')
    return tried


def settings_of(profile: str, **changes) -> tuple[Config, Study]:
    """The settings of a profile, with those of D3AD_SET and `changes`, whichever of the two each one belongs to.

    A setting of the method that is changed here is changed in every category.
    Where D3AD_SET holds any, the profile is called "<profile>-changed", so that its results stand in folders of their
    own.
    Raises ValueError for an unknown profile or setting.
    """
    tried = tried_settings()
    changes = {**tried, **changes}
    for_study = {name: changes.pop(name) for name in Study.names() if name in changes}
    config, study = Config.profile(profile, **changes), Study.profile(profile, **for_study)
    if study.start_steps and (set_in_vain := {"train_steps", "train_epochs"} & set(changes)):
        raise ValueError(f"{set_in_vain.pop()} changes nothing in {profile}, where each category's training sets out "
                         "from one for all: set start_steps and own_steps, both 0 for none")
    if study.per_category:
        left = {category: {name: value for name, value in own.items() if name not in changes}
                for category, own in study.per_category.items()}
        study = study.replace(per_category=left)
    for category, own in study.per_category.items():
        try:
            config.replace(**own)
        except ValueError as error:
            raise ValueError(f"per_category: {category}: {error}") from None
    return config.replace(name=f"{config.name}-changed") if tried else config, study
