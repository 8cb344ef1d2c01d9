"""Profiles: settings by name, a TOML file each in d3ad/profiles.  One may rest on another, its `base`."""
import tomllib
from pathlib import Path

PROFILE_FOLDER = Path(__file__).parents[1] / "profiles"


def profile_names() -> tuple[str, ...]:
    """The names of all profiles."""
    return tuple(sorted(file.stem for file in PROFILE_FOLDER.glob("*.toml")))


def read_profile(name: str) -> dict:
    """A profile's settings, those of a study under "study"; what its file doesn't say is taken from its `base`.

    Raises ValueError for an unknown name.
    """
    if name not in profile_names():
        raise ValueError(f"unknown profile {name!r}; there are {', '.join(profile_names())}")
    own = tomllib.loads((PROFILE_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    base = read_profile(own.pop("base")) if "base" in own else {}
    return base | own | {"study": base.get("study", {}) | own.get("study", {})}
