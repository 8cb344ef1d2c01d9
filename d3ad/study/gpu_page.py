"""docs/gpu.md: what the paper's profiles would cost on a GPU, what two categories took, and the rehearsal.

    python -m d3ad.study.gpu_page          # writes it, from the formulas of costs.py, docs/*.json and results/
"""
from d3ad.config import Config
from d3ad.infra.files import ROOT, read_json, write_whole
from d3ad.infra.optimising import SAVED_EVERY
from d3ad.study.ablations import TITLES
from d3ad.study.costs import H100, SHARE, of_profile, sizes
from d3ad.study.ranking import SHORT
from d3ad.study.readme.cells import markdown_table, mean_and_spread, metrics_text
from d3ad.study.readme.measured import frames, notes

PROFILES = ("visa", "visa-authors", "btad", "mvtec")
PROFILE = "mvtec-gpu"  # the one that was run on a GPU


def page() -> str:
    """docs/gpu.md."""
    lines = [f"| {name} | {found.detectors} | {found.on(1):.0f} | {found.on(8):.0f} | "
             + " | ".join(f"{found.hours[part]:.1f}" for part in ("training", "adaptation", "variants", "baselines"))
             + f" | {sum(found.disk.values()) / 1e9:.0f} | {found.written / 1e9:.0f} |"
             for name, found in ((name, of_profile(name)) for name in PROFILES)]
    config = Config.profile("visa")
    of, visa = sizes(config), of_profile("visa")
    return TEXT.format(
        table="\n".join(lines), share=f"{100 * SHARE:.0f}", minutes=SAVED_EVERY // 60, batch=config.batch_size,
        training=visa.memory["training"] / 1e9, prediction=visa.memory["prediction"] / 1e9,
        predicted=config.predict_batch, state=visa.state / 1e9, detector=4 * sum(of.weights.values()) / 1e9,
        per_image=of.saved / 2e9, weights=of.weights["UNet"] / 1e6, measured=measured(), rehearsal=_rehearsal())


def measured() -> str:
    """What the paper's UNet took and found on a GPU, from docs/gpu.json and results/."""
    found = read_json(ROOT / "docs" / "gpu.json")
    return "\n\n".join([_cost(found["alone"]), _quality(found), _baselines(found["baselines"])])


def _cost(found: dict) -> str:
    """The cost of one detector trained alone, and the formula's rate."""
    config = Config.profile(PROFILE)
    flop = 3 * sizes(config).flop["eps"] * found["steps"] * found["batch_size"]
    rate = flop / found["training_seconds"]
    rows = [(f"steps of Eq. 6 on batches of {found['batch_size']}", f"{found['steps']:,}"),
            ("seconds for them", f"{found['training_seconds']:.0f}"),
            ("steps a second", f"{found['steps'] / found['training_seconds']:.1f}"),
            ("rate, TFLOP/s", f"{rate / 1e12:.0f}"),
            ("share of the peak rate in bfloat16, %", f"{100 * rate / H100[config.train_precision]:.1f}"),
            ("peak memory, GB", f"{found['training_bytes'] / 1e9:.1f}"),
            ("seconds of the whole fit, adaptation and calibration included", f"{found['fit_seconds']:.0f}"),
            (f"seconds an image in prediction, {found['predict_batch']} at a time",
             f"{found['seconds_per_image']:.3f}")]
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return f"""The `{PROFILE}` profile on {found["category"]} ({found["images"]} normal images, \
{config.train_epochs} epochs, {config.image_size} pixels) on one {found["gpu"]},
which has the same peak rate as an H100; torch {found["torch"]}, commit {found["commit"]}.
The share is low: maps of 32 x 32 and batches of {found["batch_size"]} are small work, and one of the host's cores is
kept busy launching kernels.

| | |
|---|---:|
{table}"""


def _quality(found: dict) -> str:
    """The scores of the committed run, beside what the paper reports."""
    of_paper, rows = frames("table6")[PROFILE].set_index(["category", "method"]), []
    benchmark = frames("benchmark")[PROFILE]
    benchmark = benchmark[benchmark["category"] != "Average"].sort_values("category", kind="stable")
    for row in benchmark.to_dict("records"):
        key = row["category"], row["method"]
        reported = metrics_text(of_paper.loc[key], "reported") if key in of_paper.index else ""
        rows.append([row["category"], row["method"], metrics_text(row), reported])
    rows += [[row["category"], f"D3AD, features compared by the Mahalanobis distance (ours), lambda {row['weight']:g}",
              metrics_text(row), ""] for row in found["distances"]]
    numbers = benchmark.set_index(["method", "category"])[[f"measured_{metric}" for metric in TITLES]]
    gains = "; ".join(f"{category} " + " / ".join(mean_and_spread(gain, sign="+") for gain in row) for category, *row in
                      (numbers.loc["D3AD"] - numbers.loc["D3AD, fully noised"]).itertuples())
    took = " and ".join(f"{seconds} s ({category})" for category, seconds in found["together"]["fit_seconds"].items())
    origin = notes(PROFILE, "provenance")[f"results/{PROFILE}/benchmark.csv"]
    return f"""What came out, seed 0, beside what the paper reports; the settings are the paper's but for the
autoencoder, the backbone, bfloat16, one guidance for all categories (eta 7) and, where a row says so, the distance of
features and lambda; those rows have the same trained networks. Nothing was tuned on these images. Measured PRO is exact
here. The categories were trained at the same time on one {origin["machine"]["gpu"]}, baselines beside them:
the fits took {took}. Commit {origin["commit"]}.

{markdown_table(["category", "method", "measured: I-AUROC / P-AUROC / PRO, %", "reported"], rows)}

An only scaled input against a noised one, in points: {gains}."""


def _baselines(found: list[dict]) -> str:
    """The other baselines measured on a GPU, with the images they saw."""
    rows = [[row["method"], row["category"], metrics_text(row), _share(row)] for row in found]
    return f"""These baselines were measured on the H200, too, at the same size; those on pretrained features have the
same ResNet-18. The last column is the share of a full training's images: as many as the method's paper asks for, or,
for GANomaly, as many as [we chose](baselines.md):

{markdown_table(["method", "category", "I-AUROC / P-AUROC / PRO, %", "images"], rows)}"""


def _share(row: dict) -> str:
    """The share of the images its paper asks for that a baseline saw: "100 %", "short, 27 %"."""
    word = "short, " * (row["training"] == SHORT)
    return f"{word}{100 * row['images'] / row['images_asked']:.0f} %"


def _rehearsal() -> str:
    """What scripts/rehearse_paper.sh measured, from docs/rehearsal.json; a part of it where it was stopped."""
    file = ROOT / "docs" / "rehearsal.json"
    if not file.exists():
        return "Not measured yet: `./scripts/rehearse_paper.sh --docs docs/rehearsal.json`, then the command above."
    found = read_json(file)
    kinds = (("step_seconds", "one step of 30 images of 256 pixels, in 10 parts: minutes", 60),
             ("step_bytes", "its peak memory, GB", 1e9), ("seconds_until_kill", "minutes until it was killed", 60),
             ("seconds", "minutes in all, before and after it was killed", 60),
             ("bytes", "peak memory of all processes, GB", 1e9),
             ("state_bytes", "training state on disk, GB", 1e9), ("detector_bytes", "saved detector, GB", 1e9),
             ("cache_bytes", "cache at the end, GB", 1e9))
    rows = [f"| {what} | {found[key] / unit:.1f} |" for key, what, unit in kinds if key in found]
    rows += [f"| notebook {name}, minutes | {value} |" for name, value in found.get("minutes", {}).items()]
    table = "\n".join(rows)
    return f"On {found['cores']} cores of {found['processor']}:\n\n| | |\n|---|---:|\n{table}"


TEXT = """# The paper's profiles on a GPU

[Back to the README](../README.md) · [cluster](cluster.md) · [speed](speed.md)

[The table of results](../README.md#results-reported-measured-pending) says which of `visa`, `visa-authors`, `btad` and
`mvtec` have been run. This page has their cost **by formula**, the cost and the results of two categories on a GPU,
and what the rehearsal without a GPU measured. `python -m d3ad.study.gpu_page` writes it; `./run_all.sh`
prints the forecast for the images that it finds, before anything begins.

```bash
./run_all.sh --profile visa --data-root DIR --out OUT                                     # one GPU
RAY_ADDRESS=auto ./run_all.sh --profile visa --data-root DIR --out OUT --workers ray       # several
```

Where no hub can be reached, `mvtec-gpu` takes the paper's UNet, with two small networks in place of the paper's
autoencoder and ResNet-34. Put `taef2_encoder.pth` and `taef2_decoder.pth` of
[TAEF2's repository](https://github.com/madebyollin/taesd) into `~/.cache/d3ad/taef2`, and `model.safetensors` of
ImageNet's ResNet-18 (timm's `resnet18.tv_in1k`) into `~/.cache/d3ad/resnet18`; then

```bash
./run_all.sh --profile mvtec-gpu --data-root DIR      # DIR holds whatever categories of MVTec AD there are
```

On two CPU cores, `mvtec-taef2` takes the first of these networks alone.

## Hours and disk

Multiplications are counted from the networks' shapes. Two things are assumed: that an H100 reaches {share} % of its
peak rate (989 TFLOP/s in bfloat16, 495 in TF32), as measured below, which scales all hours; and that an image costs as
much in a baseline's training as in the UNet's, which scales the baselines' column. Loading, metrics and figures come
on top. With eight GPUs, each detector and all that is measured on it stay on one of them. The columns from training
to baselines are hours on one GPU. *Variants*: other settings that the notebooks measure on a trained detector. *Disk*:
detectors and maps in the cache.

| profile | detectors | one H100, h | eight, h | training | adaptation | variants | baselines | disk, GB | written, GB |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{table}

Without the baselines (`D3AD_SET='{{"baselines": []}}'`) their hours are saved. With `D3AD_SET` the results stand under
another name, such as `results/visa-changed`, and the README's tables leave them out; to have them there, change the
profile's file instead.

## Two categories, measured

{measured}

## Memory

- The UNet has {weights:.1f} M weights, as the authors' does: their widths, two residual blocks a level, attention with
  eight heads at 32, 16, 8 and 4 and in the middle, 32 groups, and residual blocks that halve and double. It is built
  from diffusers' blocks under other names, so the authors' own checkpoints can't be read into it.
- Training on batches of {batch}: at most {training:.0f} GB by formula, {per_image:.2f} GB of it per image.
  `D3AD_SET='{{"accumulate": 3}}'` computes a batch in three parts, so that only a third of the images need theirs at a
  time; the gradients are the same but for rounding.
- Prediction, {predicted} images at a time: {prediction:.0f} GB. `predict_batch` changes it.
- Each worker process loads one detector at a time; a GPU has one worker per 16 GB of its memory.
- A training state takes {state:.1f} GB. It is written every {minutes} minutes and at a training's end, and removed when
  the detector ({detector:.1f} GB of weights) is saved. "Written" in the table is the sum of all states. Each worker has
  two on disk at a time: the newest, and the one before it in case the newest is damaged.

## The rehearsal

`./scripts/rehearse_paper.sh` runs every notebook in the `visa` profile without a GPU: a synthetic category in VisA's
official layout, networks of full size with random weights, batches of 30 in 3 parts, 128 pixels, a few steps. It is
killed once and resumed. Its scores mean nothing: it tests whether a run gets through. The last rehearsal measured:

{rehearsal}
"""


if __name__ == "__main__":
    write_whole(ROOT / "docs" / "gpu.md", page())
