"""The command line: python -m d3ad check | fit | predict | watch | export | evaluate | synthesize | benchmark.

Exit codes: 0, all that was given was done; 2, something the user can fix, in one line; 3, done, but photographs were
left out that may matter (damaged, too big, of a kind that is not read), each of which is named; 130, stopped by Ctrl-C,
which is how `watch` is meant to end: it gives 0 or 3.
"""
import argparse
import os
import sys
from pathlib import Path

from d3ad.app.commands import (
    run_benchmark,
    run_check,
    run_evaluate,
    run_export,
    run_fit,
    run_predict,
    run_synthesize,
    run_watch,
)
from d3ad.infra.files import ROOT, explain
from d3ad.infra.profiles import profile_names

EXAMPLES = """examples:
  python -m d3ad synthesize drawn
  python -m d3ad check --dataset mvtec --data-root drawn
  python -m d3ad fit drawn/mvtec_anomaly_detection/weave/train/good --out model
  python -m d3ad predict model drawn/mvtec_anomaly_detection/weave/test/good --out out
  python -m d3ad evaluate model --dataset mvtec --data-root drawn --category weave"""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)  # an option that is new must not change what an old script says

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = _Parser(prog="python -m d3ad", description="Train and use the D3AD anomaly detector.",
                  epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    check = commands.add_parser("check",
                                help="decode every image and mask of a folder or dataset, and list all that is wrong")
    check.add_argument("folder", nargs="?", help="folder of images (instead of --dataset)")
    _dataset_options(check)
    _folder_options(check)
    check.set_defaults(run=run_check)

    fit = commands.add_parser("fit", help="train on a folder of good images, or on a dataset's training images")
    fit.add_argument("folder", nargs="?", help="folder of good images (instead of --dataset)")
    _dataset_options(fit)
    _folder_options(fit)
    fit.add_argument("--out", required=True, type=Path, help="folder for the trained detector")
    fit.add_argument("--profile", default="parts", choices=profile_names(), metavar="P",
                     help=f"settings: {', '.join(profile_names())}; paper: pretrained weights, the paper's sizes, "
                     "a GPU")
    fit.add_argument("--held-out", type=_share, default=0.2, metavar="SHARE",
                     help="share of the good images that is not trained on and sets the threshold; by default "
                          "%(default)s")
    fit.add_argument("--false-alarms", type=_share, default=0.01, metavar="RATE",
                     help="share of good parts that may be flagged; by default %(default)s")
    fit.add_argument("--preset", default="faithful", metavar="NAME",
                     help="how it will predict: faithful, fast, or \"3 steps\" (d3ad/speed/presets.py)")
    fit.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="where to train; by default auto")
    fit.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting, as in TOML")
    fit.set_defaults(run=run_fit)

    predict = commands.add_parser("predict", help="scores and heat maps of every image in a folder and below, or of "
                                                  "single images",
                                  epilog="exit code 3: done, but photographs were left out; each is named")
    predict.add_argument("model", type=Path)
    predict.add_argument("images", nargs="+", metavar="FOLDER",
                         help="folder of images, single images, or - for a list of them on standard input")
    predict.add_argument("--out", required=True, type=Path,
                         help="gets report.html, scores.csv, and a heat map, an overlay and a mask per "
                         "image; what an earlier run wrote there goes, nothing else does")
    _judging_options(predict)
    predict.add_argument("--coco", action="store_true", help="write the regions above the threshold as coco.json, too")
    predict.set_defaults(run=run_predict)

    watch = commands.add_parser("watch", help="judge images as they arrive in a folder, a line of JSON each, until "
                                              "Ctrl-C")
    watch.add_argument("model", type=Path)
    watch.add_argument("folder", help="folder that images arrive in")
    watch.add_argument("--out", required=True, type=Path,
                       help="gets scores.csv, and a heat map, an overlay and a mask per image")
    watch.add_argument("--interval", type=_seconds, default=1.0, metavar="SECONDS",
                       help="between two scans of the folder; by default %(default)s")
    _judging_options(watch)
    watch.set_defaults(run=run_watch)

    export = commands.add_parser("export", help="a model as torch.export programs with all that a verdict needs, to "
                                                "run without this package")
    export.add_argument("model", type=Path)
    export.add_argument("--out", required=True, type=Path, help="gets four programs (.pt2), export.json, "
                                                                "verdict.safetensors, and verdict.py, which uses them")
    export.set_defaults(run=run_export)

    evaluate = commands.add_parser("evaluate", help="I-AUROC, P-AUROC and PRO on a dataset's test images, as JSON")
    evaluate.add_argument("model", type=Path)
    _dataset_options(evaluate)
    _folder_options(evaluate)
    evaluate.add_argument("--small-regions", choices=("keep", "drop"), default="keep",
                          help="of masks made smaller: keep at least a pixel of each, or drop what vanishes, as the "
                               "authors' code does")
    evaluate.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="where to compute; by default auto")
    evaluate.add_argument("--batch", type=_count, metavar="N", help="images computed at once")
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
                                    help="images per second, share of the machine's limit, all methods, training, "
                                         "metrics, growth; as JSON")
    benchmark.add_argument("--only", choices=("inference", "methods", "training", "metrics", "growth"),
                           help="this part of the benchmark; by default all five")
    benchmark.add_argument("--long", action="store_true",
                           help="of growth: to 10,000 photographs, 50,000 training images and 1,024 pixels a side")
    benchmark.add_argument("--size", choices=("paper", "demo", "tiny"), default="paper",
                           help="of networks and images; by default %(default)s")
    benchmark.add_argument("--batch", type=_count, default=16, metavar="N",
                           help="images predicted at once; by default %(default)s")
    benchmark.add_argument("--out", type=Path, default=ROOT / "results" / "benchmark",
                           help="folder for a JSON file of each, and growth.png; by default results/benchmark")
    benchmark.set_defaults(run=run_benchmark)
    return top


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _above_zero(text: str, most: float) -> float:
    """A number above 0, `most` at most."""
    value = _number(text)
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"{text} must be above 0 and at most {most}")
    return value


def _share(text: str) -> float:
    """A number between 0 and 0.5, without 0."""
    return _above_zero(text, 0.5)


def _count(text: str) -> int:
    """A whole number of images at once, 1 to 4096."""
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number from 1 to 4096")
    return int(text)


def _seconds(text: str) -> float:
    """A time above 0, a day at most."""
    return _above_zero(text, 86400)


def _finite(text: str) -> float:
    """A number that is neither NaN nor infinite."""
    value = _number(text)
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be finite")
    return value


def _folder_options(command: argparse.ArgumentParser) -> None:
    for name, what in (("good", "good parts"), ("defects", "defects"), ("masks", "masks")):
        command.add_argument(f"--{name}", action="append", default=[], metavar="NAME",
                             help=f"sub-folder that holds {what}, where its name leaves that open; . is the folder "
                                  "itself")


def _judging_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", metavar="NAME", help="how to compute: faithful, fast, or \"3 steps\" "
                                                          "(d3ad/speed/presets.py); by default as it "
                         "was fitted; another than that needs --threshold or --good")
    command.add_argument("--threshold", type=_finite, metavar="X",
                         help="scores above it are anomalous; by default the model's")
    command.add_argument("--good", metavar="FOLDER",
                         help="photographs of good parts that were not trained on, which set the threshold")
    command.add_argument("--false-alarms", type=_share, metavar="RATE",
                         help="with --good: share of good parts that may be flagged; by default 0.01")
    command.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="where to compute; by default auto")
    command.add_argument("--batch", type=_count, metavar="N",
                         help="images computed at once; by default as it was fitted")
    command.add_argument("--pictures", choices=("all", "flagged", "none"), default="all",
                         help="of which images to write; by default %(default)s")
    command.add_argument("--raw", action="store_true", help="write each anomaly map as NPY, too")


def _dataset_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", help="visa, btad, mvtec, mtd, elpv or folder")
    command.add_argument("--data-root", type=Path, help="where it lies; of elpv by default its package")
    command.add_argument("--category")
    command.add_argument("--split", choices=("random", "by_tile"), help="of the magnetic tiles; by default random")
    command.add_argument("--split-seed", type=int, metavar="N",
                         help="of the division of mtd, elpv or a folder; by default 0")


def main(arguments: list[str] | None = None) -> int:
    """The command.  Returns its exit code, see the module."""
    options = parser().parse_args(arguments)
    if os.environ.get("RANK", "0") != "0":  # of several processes the first one speaks
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open to the end of the process)
    try:
        return options.run(options) or 0
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        said = explain(error) if isinstance(error, OSError) else error
        print(f"python -m d3ad {options.command}: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = options.command in ("fit", "predict", "watch")
        print("\nstopped" + "; the same command continues where it stopped" * goes_on, file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
            raise
        print(f"python -m d3ad {options.command}: out of memory: give a smaller --batch (of fit: --set batch_size=N), "
              "or --device cpu",
              file=sys.stderr)
        return 2
