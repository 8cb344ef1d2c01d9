"""D3AD: Dynamic Denoising Diffusion Probabilistic Model for Anomaly Detection, a companion to the paper."""
import warnings

from d3ad.config import Config

__version__ = "0.1.0"
__all__ = ["D3AD", "Config", "Prediction", "__version__"]

warnings.filterwarnings("ignore", message="IProgress not found")  # from diffusers' import; our bars are plain text


def __getattr__(name: str):
    """D3AD and Prediction, imported when asked for: a wrong option is answered without waiting for torch."""
    if name in ("D3AD", "Prediction"):
        from d3ad import detector
        return getattr(detector, name)
    raise AttributeError(f"module 'd3ad' has no attribute {name!r}")
