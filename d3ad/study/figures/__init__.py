"""Figures: one function each.  They take tensors and numbers, and return a matplotlib figure."""
from d3ad.study.figures.ledger import intervals, one_claim, verdicts
from d3ad.study.figures.method import architecture, bin_histograms, checkpoints, dynamic_conditioning, losses, schedule
from d3ad.study.figures.pictures import (
    Cell,
    forward_process,
    latent_picture,
    mask_comparison,
    pairs,
    picture_table,
    scaled_and_noised,
)
from d3ad.study.figures.scores import (
    effects,
    method_dots,
    metric_bars,
    omega_curves,
    rank_plot,
    scores_by_kind,
    size_bars,
)
from d3ad.study.figures.speed import growth, quality_and_time, roofline

__all__ = [
    "Cell", "architecture", "bin_histograms", "checkpoints", "dynamic_conditioning", "effects", "forward_process",
    "growth", "intervals", "latent_picture", "losses", "mask_comparison", "method_dots", "metric_bars",
    "omega_curves", "one_claim", "pairs", "picture_table", "quality_and_time", "rank_plot", "roofline",
    "scaled_and_noised", "schedule", "scores_by_kind", "size_bars", "verdicts",
]
