"""Where each figure and table comes from: written with its commit, settings, data, versions and machine."""
import hashlib
import io
import json
import platform
import sys
import time

import matplotlib.pyplot as plt
import pandas as pd
import torch
from PIL import Image

from d3ad.detector import D3AD
from d3ad.infra.devices import processor_name
from d3ad.infra.files import ROOT, in_turn, read_json, write_whole
from d3ad.infra.versions import PACKAGES, commit, version
from d3ad.study import paper
from d3ad.study.running.progress import kept_minutes
from d3ad.study.workspace import Workspace

# Every figure and table of the paper: the notebook that makes it, and what it shows.
ARTIFACTS = {
    "fig01": ("06_qualitative", "segmentations across scales"),
    "fig02": ("01_background", "dynamic conditioning: the farther from the training images, the more disturbed"),
    "fig03": ("01_background", "one image's path through the detector"),
    "fig04": ("06_qualitative", "how the anomaly map is put together"),
    "fig05": ("03_dic_histograms", "bins of training and test images"),
    "fig06": ("03_dic_histograms", "masks at fixed steps and at the dynamic one"),
    "fig07": ("06_qualitative", "reconstruction and segmentation by category"),
    "fig08": ("06_qualitative", "reconstructions, beside DRAEM's where it was measured"),
    "fig09": ("06_qualitative", "masks beside those of two baselines"),
    "fig10": ("06_qualitative", "more segmentations across scales"),
    "fig11": ("01_background", "the forward process, noised"),
    "fig12": ("01_background", "the forward process, only scaled"),
    "fig13": ("01_background", "only scaled, up to step 800"),
    "fig14": ("04_noise_fraction_ablation", "three metrics over the share of noise"),
    "fig15": ("04_noise_fraction_ablation", "scaled beside noised at rising levels"),
    "fig16": ("03_dic_histograms", "bins of all categories"),
    "table1": ("07_benchmark_tables", "VisA: I-AUROC, PRO"),
    "table2": ("07_benchmark_tables", "diffusion models on VisA"),
    "table3": ("07_benchmark_tables", "BTAD: I-AUROC, PRO"),
    "table4": ("03_dic_histograms", "dynamic against fixed steps"),
    "table5": ("05_ds_da_ablation", "downscaling and domain adaptation"),
    "table6": ("07_benchmark_tables", "MVTec AD: I-AUROC, P-AUROC, PRO"),
    "table7": ("07_benchmark_tables", "VisA: P-AUROC"),
    "table8": ("07_benchmark_tables", "time per image"),
}
DPI, JPEG_QUALITY = 150, 75
_WRITTEN: set[str] = set()  # what this process wrote, as its paths below a workspace's folder


def header(workspace: Workspace) -> None:
    """Print what a run depends on: versions, profile, device, seed."""
    light_pictures()
    config = workspace.config
    print("versions:", ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    print(f"profile {config.name} · device {config.device} · seed {config.seed} · settings {workspace.settings_hash}")
    if workspace.study.label:
        print(workspace.study.label)


def light_pictures() -> None:
    """In a notebook, keep pictures as JPEG: noise as PNG makes files of several megabytes.  figures/ stays PNG."""
    if _in_notebook():
        from matplotlib_inline.backend_inline import set_matplotlib_formats
        set_matplotlib_formats("jpeg", bbox_inches="tight", pil_kwargs={"quality": JPEG_QUALITY})


def _in_notebook() -> bool:
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def machine() -> dict:
    """The machine, without its name: processor, cores, GPU."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return dict(system=platform.system(), processor=processor_name(), threads=torch.get_num_threads(), gpu=gpu)


def save_figure(workspace: Workspace, fig, name: str, fingerprint: str = "") -> None:
    """Write figures/<profile>/<name>.png, stamped with profile, seed, settings and commit, and note where it comes
    from; in a notebook, show it.

    fingerprint: of the data that it shows.
    """
    config, label = workspace.config, workspace.study.label and f" · {workspace.study.label}"
    fig.text(0.999, 1.005,
             f"{config.name} profile · seed {config.seed} · settings {workspace.settings_hash} · commit {commit()}"
             f"{label}",
             ha="right", va="bottom", fontsize=5, color="#888888")
    drawn, buffer = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight", pil_kwargs=dict(compress_level=1))
    with Image.open(drawn) as opened:
        picture = opened.convert("RGB")
    _in_256_colours(picture).save(buffer, format="png", optimize=True)
    write_product(workspace, f"figures/{workspace.name}/{name}.png", buffer.getvalue(), fingerprint)
    if _in_notebook():
        plt.close(fig)  # else Jupyter would draw it once more
        _show(picture.resize([round(side * fig.dpi / DPI) for side in picture.size], Image.Resampling.LANCZOS))


def _show(picture: Image.Image) -> None:
    """Show a picture below the cell of a notebook that is running."""
    from IPython.display import Image as Output
    from IPython.display import display
    shown = io.BytesIO()
    picture.save(shown, format="jpeg", quality=JPEG_QUALITY)
    display(Output(shown.getvalue(), format="jpeg"))


def _in_256_colours(picture: Image.Image) -> Image.Image:
    """The picture with a palette that keeps rare colours too: a fifth of the bytes.  Every third pixel of every third
    line chooses it, for speed.
    """
    sample = picture.resize((picture.width // 3, picture.height // 3), Image.Resampling.NEAREST)
    palette = sample.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def write_product(workspace: Workspace, path: str, content: bytes, fingerprint: str) -> None:
    """Write one product in one go, and its entry in provenance.json, which holds the SHA-256 of its bytes."""
    write_whole((workspace.out or ROOT) / path, content)
    note = workspace.results / "provenance.json"
    with in_turn(workspace.cache / "provenance.lock"):  # else one of two notebooks could undo the other's entry
        entries = read_json(note) if note.exists() else {}
        entries[path] = dict(
            sha256=hashlib.sha256(content).hexdigest(), commit=commit(), config=workspace.settings_hash,
            data=fingerprint,
            seed=workspace.config.seed, packages={name: version(name) for name in PACKAGES}, machine=machine(),
            seconds=round(time.monotonic() - workspace.opened, 1))
        write_whole(note, json.dumps(entries, indent=1, sort_keys=True) + "\n")
    _WRITTEN.add(path)


def written(workspace: Workspace, *names: str) -> None:
    """Raise AssertionError where this process wrote neither a figure nor a table of this name ("fig05", "table4"), or
    one is empty or out of range; else print the names.
    """
    for name in names:
        picture, table = workspace.figures / f"{name}.png", workspace.results / f"{name}.csv"
        paths = {f"figures/{workspace.name}/{name}.png", f"results/{workspace.name}/{name}.csv"}
        assert paths & _WRITTEN, f"{name} was not written"
        if picture.exists():
            assert plt.imread(picture).std() > 0.01, f"{name} is empty"
        if table.exists():
            values = pd.read_csv(table).filter(regex="^(measured|reported)_(i_auroc|p_auroc|pro)").to_numpy(dtype=float)
            assert ((values >= 0) & (values <= 100) | pd.isna(values)).all(), f"{name} is out of range"
    print("written:", ", ".join(names))


def tolerance(detector: D3AD, exact: float) -> float:
    """The difference to allow where the same is computed in two ways: `exact` for small networks on a CPU.

    A GPU multiplies with 10 bits after the point (TF32), and the paper's autoencoder and UNet go other ways for speed;
    both add up over Algorithm 1 and the decoder.
    """
    return exact if detector.device.type == "cpu" and detector.codec.is_small else 100 * exact


def finding(text: str, holds: bool) -> None:
    """Print whether what `text` says holds in this run, as "text: holds here" or "text: does not hold here".

    For what is measured, and may come out otherwise with other data or another seed.  Mathematics is asserted instead.
    """
    print(f"{text}: {'holds here' if holds else 'does not hold here'}")


def registry(workspace: Workspace, ledger: pd.DataFrame) -> list[dict]:
    """Write results/<profile>/registry.json: each average of the paper's tables and each claim, reported and measured,
    as far as they are of these settings.
    PRO beside a reported one is that of 200 thresholds where the table has it (`paper.as_reported`).

    Entries: item, paper, measured, spread, notebook, minutes; None where there is nothing.  spread: of a claim
    the standard error that its interval implies; None for the tables, which hold one seed.
    """
    took, entries = kept_minutes(workspace.results / "minutes.json", workspace.settings_hash)["minutes"], []
    note = workspace.results / "provenance.json"
    written = read_json(note) if note.exists() else {}

    def is_current(name: str) -> bool:
        about = written.get(f"results/{workspace.name}/{name}.csv", {})
        return about.get("config") == workspace.settings_hash and (workspace.results / f"{name}.csv").exists()

    def entry(item, reported, measured, spread, notebook):
        values = (None if pd.isna(value) else round(float(value), 2) if isinstance(value, float) else value
                  for value in (reported, measured, spread))
        entries.append(dict(zip(("item", "paper", "measured", "spread"), (item, *values)), notebook=notebook,
                            minutes=took.get(notebook)))

    for name, (notebook, _) in ARTIFACTS.items():
        if name.startswith("table") and is_current(name):
            frame = paper.as_reported(pd.read_csv(workspace.results / f"{name}.csv", dtype={"category": str}))
            for row in frame[frame["category"].str.startswith("Average")].to_dict("records"):
                for metric in paper.METRICS:
                    numbers = [row.get(f"{kind}_{metric}") for kind in ("reported", "measured", "spread")]
                    if not all(pd.isna(number) for number in numbers):
                        entry(f"Table {name[-1]}, {row['dataset']}, {row['method']}, {metric}", *numbers, notebook)
    for row in ledger.itertuples():
        error = (row.high - row.low) / 3.92  # the standard error that a 95 % interval is made of
        entry(f"claim: {row.claim}", row.reported or None, row.effect, error, "08_claims")
    write_product(workspace, f"results/{workspace.name}/registry.json", (json.dumps(entries, indent=1) + "\n").encode(),
                  "")
    return entries
