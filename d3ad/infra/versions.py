"""Which versions computed something: of packages, and of this checkout."""
import subprocess
from functools import lru_cache
from importlib import metadata

from d3ad.infra.files import ROOT

PACKAGES = ("torch", "diffusers", "timm", "anomalib", "faiss-cpu", "scikit-learn", "numpy", "matplotlib")


@lru_cache
def version(package: str) -> str:
    """A package's version without its local suffix, "-" where it isn't installed."""
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return "-"


@lru_cache
def commit() -> str:
    """The checkout's commit, "+" behind it where d3ad/ was changed since; "unknown" outside git."""
    def git(*arguments):
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True,
                              check=True).stdout.strip()

    if not (ROOT / ".git").exists():  # installed, perhaps below another project's checkout
        return "unknown"
    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "--", "d3ad") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
