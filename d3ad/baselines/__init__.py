"""The fourteen baselines of the paper's tables, one file each, behind one interface: fit(train), predict(images).

`make(name, ...)` builds one by the name that the paper uses.  Importing this package imports none of the baselines;
those that rest on anomalib need that optional package (`pip install "d3ad[baselines]"`), and import it when they are
fitted: it takes seconds.
"""
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

from d3ad.baselines.base import Baseline, BaselinePrediction, Resources

# The paper's name: (module, class, whether it needs anomalib)
BASELINES = {
    "SPADE": ("spade", "Spade", False),
    "PaDiM": ("padim", "Padim", False),
    "RD4AD": ("rd4ad", "RD4AD", False),
    "PatchCore": ("patchcore", "PatchCore", False),
    "DRAEM": ("draem", "Draem", True),
    "AnoDDPM": ("anoddpm", "AnoDDPM", False),
    "DiffusionAD": ("diffusionad", "DiffusionAD", True),
    "DDAD": ("ddad", "DDAD", False),
    "FastFlow": ("fastflow", "FastFlow", True),
    "CFA": ("cfa", "CFA", False),
    "RD++": ("rdpp", "RDPlusPlus", False),
    "SimpleNet": ("simplenet", "SimpleNet", False),
    "GANomaly": ("ganomaly", "GANomaly", True),
    "SkipGANomaly": ("skipganomaly", "SkipGANomaly", False),
}
VARIANTS = {"PatchCore 1%": ("patchcore", "PatchCore1", False)}  # made by name too, but in no table of the paper


def registered(name: str) -> tuple[str, str, bool]:
    """Module, class, and whether it needs anomalib.  Raises ValueError for an unknown name."""
    if name not in BASELINES | VARIANTS:
        raise ValueError(f"unknown baseline {name!r}; there are {', '.join(BASELINES | VARIANTS)}")
    return (BASELINES | VARIANTS)[name]


def check_installed(name: str) -> None:
    """Raise ValueError for an unknown name, ImportError where its package is missing; imports nothing heavy."""
    if registered(name)[2] and find_spec("anomalib") is None:
        raise ImportError(f'{name} rests on anomalib, which is not installed: pip install "d3ad[baselines]"')


def installed(names: Iterable[str]) -> list[str]:
    """Those of these baselines whose packages are installed; prints a line for each other one."""
    found = []
    for name in names:
        try:
            check_installed(name)
            found.append(name)
        except ImportError as error:
            print(f"{name} is not measured: {error}")
    return found


def baseline_class(name: str) -> type[Baseline]:
    """The class of a baseline, also where its package is missing.  Raises ValueError for an unknown name."""
    module, class_name, _ = registered(name)
    return getattr(import_module(f"d3ad.baselines.{module}"), class_name)


def title_of(name: str) -> str:
    """What tables call a baseline: its name, or its title where it only resembles the method of the paper's row.

    Raises ValueError for an unknown name.
    """
    return baseline_class(name).title or name


def make(name: str, resources: Resources) -> Baseline:
    """A baseline, ready to be fitted.  Raises as `check_installed` does."""
    check_installed(name)
    return baseline_class(name)(resources)


__all__ = ["BASELINES", "VARIANTS", "Baseline", "BaselinePrediction", "Resources", "baseline_class", "check_installed",
           "installed", "make", "registered", "title_of"]
