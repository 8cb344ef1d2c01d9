"""Every figure can be drawn, from the least that it takes."""
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from d3ad.diffusion import alpha_bar
from d3ad.study import figures
from d3ad.study.figures import Cell

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
MASK = torch.zeros(16, 16, dtype=torch.bool)
MASK[4:9, 5:12] = True
BINS, LABELS = torch.tensor([0, 1, 2, 5]), torch.tensor([0, 0, 1, 1])
DISTANCES, EDGES, LATENT = torch.rand(20) + 1, torch.linspace(1, 2, 11), torch.randn(4, 4, 4)
LEVEL = dict(disturbed=IMAGES[:1], reconstruction=IMAGES[1:2], anomaly_map=IMAGES[2, 0].abs(), circle=(8, 8))
METRICS = {"measured_i_auroc": "I-AUROC", "measured_pro": "PRO"}
SCORES = pd.DataFrame([dict(method=method, category=category, seed=seed, omega=omega, size="small", pro=80 + seed,
                            i_auroc=90 + seed, measured_pro=80 + seed, measured_i_auroc=90 + seed)
                       for method in ("D3AD", "other") for category in "ab" for seed in (0, 1) for omega in (0.0, 1.0)])
BY_METHOD = SCORES.groupby("method")[list(METRICS)].mean()

FIGURES = {
    "forward_process": lambda: figures.forward_process({"a": list(IMAGES)}, [0, 10, 20, 30]),
    "schedule": lambda: figures.schedule(alpha_bar(), 80),
    "dynamic_conditioning": lambda: figures.dynamic_conditioning(IMAGES[:2], IMAGES[:2], DISTANCES[:2], BINS[:2],
                                                                 DISTANCES, EDGES, 80, ["a", "b"]),
    "architecture": lambda: figures.architecture(IMAGES[0], LATENT, LATENT, LATENT, IMAGES[1], 40, 1.5, DISTANCES,
                                                 EDGES, 10),
    "losses": lambda: figures.losses({"diffusion": [100.0, 10.0, 1.0], "adaptation": [0.0, 1.0]}),
    "bin_histograms": lambda: figures.bin_histograms(dict.fromkeys("abcde", (BINS, BINS, LABELS)), 10),
    "mask_comparison": lambda: figures.mask_comparison([dict(label="a", image=IMAGES[0], mask=MASK,
                                                             dynamic=(MASK, "t"))],
                                                        ["dynamic"]),
    "metric_bars": lambda: figures.metric_bars(SCORES, METRICS, ["D3AD", "other"]),
    "size_bars": lambda: figures.size_bars(SCORES, ["D3AD", "other"]),
    "method_dots": lambda: figures.method_dots(BY_METHOD.reset_index(), {"i_auroc": "I-AUROC", "pro": "PRO"}),
    "rank_plot": lambda: figures.rank_plot(BY_METHOD, 1.0, METRICS),
    "omega_curves": lambda: figures.omega_curves(SCORES, 0, METRICS),
    "picture_table": lambda: figures.picture_table([[Cell(IMAGES[0], MASK, note="n"), Cell(IMAGES[0, 0], vmax=1.0),
                                                     None],
                                                     [Cell(MASK), Cell(IMAGES[1, 0]), None]],
                                                    ["a", "b"], ["image", "map", "none"]),
    "scaled_and_noised": lambda: figures.scaled_and_noised({"a": dict(
        image=IMAGES[0], mask=MASK, scaled=[LEVEL, LEVEL], noised=[LEVEL, LEVEL])}, [80, 160]),
    "effects": lambda: figures.effects(pd.DataFrame([dict(difference="a", changed_to="b", x=1.0, y=None),
                                                      dict(difference="c", changed_to="d", x=-1, y=2)]),
                                        {"x": "X", "y": "Y"}),
    "verdicts": lambda: figures.verdicts(pd.DataFrame(dict(verdict=["reproduced", "holds", "not tested"]))),
    "intervals": lambda: figures.intervals(pd.DataFrame([
        dict(claim=verdict, verdict=verdict, effect=1.0, low=-1.0, high=3.0, margin=0.0)
        for verdict in ("holds", "contradicted", "inconclusive", "not tested")])),
    "one_claim": lambda: figures.one_claim(torch.arange(100.0).numpy(), 20.0, "points"),
    "pairs": lambda: figures.pairs({"input": IMAGES,
                                    "latent": [figures.latent_picture(z) for z in LATENT.expand(4, 4, 4, 4)]},
                                    count=4),
}


@pytest.mark.parametrize("baselines, legend", [(["PaDiM"], ["baselines", "presets"]), ([], ["presets"])])
def test_quality_and_time_with_and_without_baselines(baselines, legend):
    rows = [dict(method=name, milliseconds=10.0 * i, kind=kind, measured_pro=80.0)
            for i, (name, kind) in enumerate([("faithful", "preset"), ("1 step", "preset"),
                                              *((b, "baseline") for b in baselines)], 1)]
    figure = figures.quality_and_time(pd.DataFrame(rows), "pro", "PRO")
    figure.canvas.draw()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == legend
    plt.close(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_something_in_each_axis_and_is_drawn_alike_again(name):
    pictures = []
    for _ in range(2):
        figure, file = FIGURES[name](), io.BytesIO()
        figure.savefig(file, format="png", dpi=40, metadata={"Software": None})
        pictures.append(file.getvalue())
        plt.close(figure)
    axes = [ax for ax in figure.get_axes() if ax.get_visible() and ax.axison]
    assert [ax for ax in axes if not (ax.has_data() or ax.texts)] == []
    assert pictures[0] == pictures[1] and np.ptp(plt.imread(io.BytesIO(pictures[0]))[..., :3]) > 0.5
