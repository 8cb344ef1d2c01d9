"""The command line: python -m d3ad check | fit | predict | export | evaluate | synthesize | benchmark."""
import argparse
import contextlib
import json
import os
import shutil
import sys
import tomllib
from pathlib import Path

from d3ad.config import Config, profiles
from d3ad.infra.files import ROOT, alone, explain, tidy

EXAMPLES = """examples:
  python -m d3ad synthesize drawn
  python -m d3ad check --dataset mvtec --data-root drawn
  python -m d3ad fit drawn/mvtec_anomaly_detection/weave/train/good --out model
  python -m d3ad predict model drawn/mvtec_anomaly_detection/weave/test/good --out out
  python -m d3ad evaluate model --dataset mvtec --data-root drawn --category weave"""


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = _Parser(prog="python -m d3ad", description="Train and use the D3AD anomaly detector.", allow_abbrev=False,
                  epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    check = commands.add_parser("check",
                                help="decode every image and mask of a folder or dataset, and list all that is wrong")
    check.add_argument("folder", nargs="?", help="folder of images (instead of --dataset)")
    _dataset_options(check)
    check.set_defaults(run=run_check)

    fit = commands.add_parser("fit", help="train on a folder of good images, or on a dataset's training images")
    fit.add_argument("folder", nargs="?", help="folder of good images (instead of --dataset)")
    _dataset_options(fit)
    fit.add_argument("--out", required=True, type=Path, help="folder for the trained detector")
    fit.add_argument("--profile", default="demo", choices=profiles(), metavar="P",
                     help=f"settings: {', '.join(profiles())}; paper: pretrained weights, the paper's sizes, a GPU")
    fit.add_argument("--held-out", type=_share, default=0.2, metavar="SHARE",
                     help="share of the good images that is not trained on and sets the threshold; by default "
                          "%(default)s")
    fit.add_argument("--false-alarms", type=_share, default=0.01, metavar="RATE",
                     help="share of good parts that may be flagged; by default %(default)s")
    fit.add_argument("--preset", default="faithful", metavar="NAME",
                     help="how it will predict: faithful, fast, or \"3 steps\" (d3ad/speed/presets.py)")
    fit.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting, as in TOML")
    fit.set_defaults(run=run_fit)

    predict = commands.add_parser("predict", help="scores and heat maps of a folder of images")
    predict.add_argument("model", type=Path)
    predict.add_argument("folder", help="folder of images")
    predict.add_argument("--out", required=True, type=Path,
                         help="gets report.html, scores.csv, and a heat map, an overlay and a mask per image")
    predict.add_argument("--preset", metavar="NAME",
                         help="how to compute: faithful, fast, or \"3 steps\" (d3ad/speed/presets.py); by default as "
                              "it was fitted")
    predict.add_argument("--raw", action="store_true", help="write each anomaly map as NPY, too")
    predict.set_defaults(run=run_predict)

    export = commands.add_parser("export",
                                 help="the networks of a model as torch.export programs, which run without this "
                                      "package")
    export.add_argument("model", type=Path)
    export.add_argument("--out", required=True, type=Path,
                        help="gets encoder.pt2, decoder.pt2, unet.pt2, features.pt2 and export.json")
    export.set_defaults(run=run_export)

    evaluate = commands.add_parser("evaluate", help="I-AUROC, P-AUROC and PRO on a dataset's test images, as JSON")
    evaluate.add_argument("model", type=Path)
    _dataset_options(evaluate)
    evaluate.add_argument("--normalisation", choices=("train", "test"), default="train")
    evaluate.set_defaults(run=run_evaluate)

    synthesize = commands.add_parser("synthesize", help="draw the synthetic datasets in the layouts of the real ones")
    synthesize.add_argument("out", type=Path)
    for name, default in (("train", 80), ("good", 20), ("bad", 40), ("seed", 0), ("size", 256)):
        synthesize.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"by default {default}")
    synthesize.add_argument("--only", metavar="NAME",
                            help="one drawing, such as board, weave, or button, which no profile trains on")
    synthesize.set_defaults(run=run_synthesize)

    benchmark = commands.add_parser("benchmark",
                                    help="images per second, share of the machine's limit, training, metrics; as JSON")
    benchmark.add_argument("--only", choices=("inference", "training", "metrics"), help="one of the three")
    benchmark.add_argument("--size", choices=("paper", "demo", "tiny"), default="paper",
                           help="of networks and images; by default %(default)s")
    benchmark.add_argument("--batch", type=int, default=16, metavar="N",
                           help="images predicted at once; by default %(default)s")
    benchmark.add_argument("--out", type=Path, default=ROOT / "results" / "benchmark",
                           help="folder for inference.json, training.json and metrics.json; by default "
                                "results/benchmark")
    benchmark.set_defaults(run=run_benchmark)
    return top


def _share(text: str) -> float:
    """A number between 0 and 0.5, without 0."""
    value = float(text)
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text} must lie above 0 and at most at 0.5")
    return value


def _dataset_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", help="visa, btad, mvtec, mtd or folder")
    command.add_argument("--data-root", type=Path, help="where it lies")
    command.add_argument("--category")
    command.add_argument("--split", choices=("random", "by_tile"), default="random", help="of the magnetic tiles")
    command.add_argument("--split-seed", type=int, default=0)


def _need_dataset(options) -> None:
    if not options.dataset or not options.data_root:
        raise ValueError("give --dataset and --data-root" + (", or a folder" if options.command in ("check", "fit")
                                                             else ""))


def _dataset(options):
    from d3ad import data
    _need_dataset(options)
    more = dict(split=options.split, seed=options.split_seed) if options.dataset == "mtd" else {}
    return data.load(options.dataset, options.data_root, options.category, **more)


def _team():
    """The processes that were launched together, or this one alone."""
    from d3ad.infra.processes import launched
    from d3ad.training import ALONE
    return launched() or ALONE


def run_check(options) -> None:
    """Print what is unusual, and raise DataError with every problem of every category."""
    from tqdm import tqdm

    from d3ad import data
    if options.folder:
        options.dataset, options.data_root = "folder", options.folder
    _need_dataset(options)
    names = [options.category] if options.category else data.categories(options.dataset, options.data_root)
    problems, images = [], 0
    for options.category in tqdm(names, "check", disable=len(names) == 1):
        try:
            dataset = _dataset(options)
        except data.DataError as error:
            problems += str(error).splitlines()
            continue
        images += len(dataset.train) + len(dataset.test)
        print(dataset, *dataset.notes, sep="\n  ")
        problems += dataset.check() + dataset.duplicates()
    if problems:
        raise data.DataError("\n".join([f"{len(problems)} problems:", *problems]))
    print(f"{images} images in {len(names)} categories: nothing to mend")


def run_fit(options) -> None:
    """Train on most of the good images, set the threshold on the others, save; a training that was stopped goes on."""
    from d3ad import data
    from d3ad.app import part
    from d3ad.images import as_images
    from d3ad.infra.checkpoint import check_replaceable
    from d3ad.speed.presets import preset
    check_replaceable(options.out)  # before any training
    changes = {}
    for setting in options.set:
        name, _, value = setting.partition("=")
        try:
            changes[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[name] = value
    config = Config.profile(options.profile, **changes)
    preset(options.preset)  # before any training
    dataset = data.load("folder", options.folder) if options.folder else _dataset(options)
    images = as_images(dataset, config.image_size, "train")
    training, is_first = options.out.with_name(options.out.name + ".training"), _team().is_first
    with alone(training / "lock", f"trains {options.out}") if is_first else contextlib.nullcontext():
        if is_first:
            tidy(training)
        detector, num_trained = part.fit_part(images, config, options.held_out, options.false_alarms, training,
                                              options.preset)
        if is_first:
            detector.save(options.out, model_card(detector, dataset, num_trained))
            shutil.rmtree(training)
    print(f"saved to {options.out}; {detector.guarantee}")


def model_card(detector, dataset, num_trained: int) -> str:
    """What a person who finds the model folder wants to know, as Markdown."""
    from d3ad.infra import versions
    paper = Config().to_dict()
    settings = {name: value for name, value in detector.config.to_dict().items() if value != paper[name]}
    return "\n".join([
        "# A D3AD anomaly detector", "",
        f"Trained on {num_trained} good images of {dataset} (fingerprint {dataset.fingerprint()}).", "",
        f"{str(detector.guarantee).capitalize()}.", "",
        "Use: `python -m d3ad predict THIS_FOLDER NEW_IMAGES --out OUT`, or `from d3ad import D3AD; "
        "D3AD.load(folder)`.", "",
        "Versions: " + ", ".join(f"{name} {versions.version(name)}"
                                 for name in versions.PACKAGES) + f"; d3ad commit {versions.commit()}.", "",
        "Settings that differ from the paper's:", "",
        *(f"- `{name}` = {json.dumps(value)}" for name, value in settings.items()), ""])


def run_predict(options) -> None:
    """Write scores.csv, report.html and pictures."""
    import time

    from d3ad import data
    from d3ad.app import report
    from d3ad.speed import presets
    detector = presets.load(options.model)
    detector.team = _team()
    if options.preset:
        detector = presets.apply(detector, options.preset)
    dataset = data.load("folder", options.folder)
    split = "test" if dataset.test else "train"
    samples = getattr(dataset, split)
    images = dataset.images(split, detector.config.image_size)
    started = time.monotonic()
    prediction = detector.predict(images, progress=True)
    rate = len(images) / (time.monotonic() - started)
    names = [sample.image.relative_to(dataset.root).as_posix() for sample in samples]
    guarantee = str(detector.guarantee
                    or f"threshold {prediction.threshold:.4g}, a quantile of training images: new good images exceed "
                       "it more often")
    if detector.team.is_first:
        report.write_results(options.out, names, images, prediction, guarantee[0].upper() + guarantee[1:] + ".",
                             options.raw)
    print(f"{int(prediction.is_anomalous.sum())} of {len(samples)} images flagged, {rate:.1f} images a second; "
          f"{options.out / 'report.html'}")


def run_export(options) -> None:
    """Write the networks as torch.export programs."""
    from d3ad import D3AD
    from d3ad.app import export
    print(*export.export(D3AD.load(options.model, device="cpu"), options.out), sep="\n")


def run_evaluate(options) -> None:
    """Print the metrics as JSON."""
    from d3ad.speed import presets
    from d3ad.study.outcome import evaluate
    detector, dataset = presets.load(options.model), _dataset(options)
    if dataset.labels("test").unique().tolist() != [0, 1]:
        raise ValueError(f"{dataset}: metrics need both good and anomalous test images")
    masks = dataset.masks("test", detector.config.image_size)  # what lacks a mask is said before the long work
    prediction = detector.predict(dataset, normalisation=options.normalisation, progress=True)
    found = evaluate(prediction, dataset.labels("test"), masks)
    print(json.dumps({name: None if value is None else round(value, 4) for name, value in found.items()}))


def run_synthesize(options) -> None:
    """Draw every synthetic category, or the one that was asked for."""
    from d3ad.data import synthetic
    categories = synthetic.CATEGORIES
    if options.only:
        layout = next((layout for layout, names in categories.items() if options.only in names), "mvtec")
        categories = {layout: (options.only,)}
    folders = synthetic.write_all(options.out, options.train, options.good, options.bad, options.seed, options.size,
                                  categories)
    print(*folders.values(), sep="\n")


def run_benchmark(options) -> None:
    """Measure, print a line per row, and keep the rows of other machines and sizes that the files hold."""
    from d3ad.speed import benchmark

    for part in (options.only,) if options.only else benchmark.PARTS:
        file = options.out / f"{part}.json"
        print(benchmark.as_text(benchmark.measured(part, options.size, options.batch, file)), f"written: {file}",
              sep="\n")


def main(arguments: list[str] | None = None) -> int:
    """The command.  Exit code 0, 2 for what the user can mend, 130 for Ctrl-C."""
    options = parser().parse_args(arguments)
    if os.environ.get("RANK", "0") != "0":  # of several processes (`ranks`) the first one speaks
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  open until the process ends
    try:
        options.run(options)
    except (ValueError, OSError, FloatingPointError) as error:
        said = explain(error) if isinstance(error, OSError) else error
        print(f"python -m d3ad {options.command}: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command continues where it stopped", file=sys.stderr)
        return 130
    return 0
