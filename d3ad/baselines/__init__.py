"""The fourteen rivals of the paper's tables, one file each, behind one interface: fit(train), predict(images).

`make(name, ...)` builds one by the name that the paper uses.  Importing this package imports none of the rivals; those
that rest on anomalib need that optional package (`pip install "d3ad[rivals]"`).
"""
from importlib import import_module

from d3ad.baselines.base import Rival, RivalPrediction, Resources

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


def rival_class(name: str) -> type[Rival]:
    """The class of a rival.  Raises ValueError for an unknown name, ImportError saying what to install."""
    if name not in RIVALS:
        raise ValueError(f"unknown rival {name!r}; there are {', '.join(RIVALS)}")
    module, class_name, needs_anomalib = RIVALS[name]
    try:
        return getattr(import_module(f"d3ad.baselines.{module}"), class_name)
    except ImportError as error:
        if needs_anomalib and "anomalib" in str(error):
            raise ImportError(f'{name} rests on anomalib, which is not installed: pip install "d3ad[rivals]"') from error
        raise


def make(name: str, resources: Resources) -> Rival:
    """A rival, ready to be fitted."""
    return rival_class(name)(resources)


__all__ = ["RIVALS", "Resources", "Rival", "RivalPrediction", "make", "rival_class"]
