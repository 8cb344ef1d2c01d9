"""The fourteen rivals of the paper's tables, one file each, behind one interface: fit(train), predict(images).

`make(name, ...)` builds one by the name that the paper uses.  Importing this package imports none of the rivals; those
that rest on anomalib need that optional package (`pip install "d3ad[rivals]"`).
"""
from importlib import import_module
from importlib.util import find_spec

from d3ad.baselines.base import Resources, Rival, RivalPrediction

# The paper's name: (module, class, whether it needs anomalib)
RIVALS = {
    "SPADE": ("spade", "Spade", False),
    "PaDiM": ("padim", "Padim", True),
    "RD4AD": ("rd4ad", "RD4AD", True),
    "PatchCore": ("patchcore", "PatchCore", True),
    "DRAEM": ("draem", "Draem", True),
    "AnoDDPM": ("anoddpm", "AnoDDPM", False),
    "DiffusionAD": ("diffusionad", "DiffusionAD", True),
    "DDAD": ("ddad", "DDAD", False),
    "FastFlow": ("fastflow", "FastFlow", True),
    "CFA": ("cfa", "CFA", True),
    "RD++": ("rdpp", "RDPlusPlus", True),
    "SimpleNet": ("simplenet", "SimpleNet", False),
    "GANomaly": ("ganomaly", "GANomaly", True),
    "SkipGANomaly": ("skipganomaly", "SkipGANomaly", False),
}


def check_installed(name: str) -> None:
    """Raise ValueError for an unknown name, ImportError where a rival's package is missing; imports nothing heavy."""
    if name not in RIVALS:
        raise ValueError(f"unknown rival {name!r}; there are {', '.join(RIVALS)}")
    if RIVALS[name][2] and find_spec("anomalib") is None:
        raise ImportError(f'{name} rests on anomalib, which is not installed: pip install "d3ad[rivals]"')


def rival_class(name: str) -> type[Rival]:
    """The class of a rival.  Raises as `check_installed` does."""
    check_installed(name)
    module, class_name, _ = RIVALS[name]
    return getattr(import_module(f"d3ad.baselines.{module}"), class_name)


def make(name: str, resources: Resources) -> Rival:
    """A rival, ready to be fitted."""
    return rival_class(name)(resources)


__all__ = ["RIVALS", "Resources", "Rival", "RivalPrediction", "check_installed", "make", "rival_class"]
