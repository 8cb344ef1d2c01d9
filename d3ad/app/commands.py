"""What each command of the command line does: one function each, which takes the options as they were parsed.

Heavy packages are imported where a command needs them: a wrong option is answered without waiting for torch.
"""
import contextlib
import io
import json
import os
import shutil
import sys
import tomllib
from pathlib import Path

from d3ad.config import Config
from d3ad.infra.files import alone, tidy, write_whole

DRAWN = ("mtd", "elpv", "folder")  # datasets that are divided at random


def _need_dataset(options) -> None:
    if not options.dataset or not (options.data_root or options.dataset == "elpv"):  # which has a package
        raise ValueError("give --dataset and --data-root" + (", or a folder" if options.command in ("check", "fit")
                                                             else ""))


def _dataset(options):
    from d3ad import data
    _need_dataset(options)
    more = {}
    if options.split is not None:
        if options.dataset != "mtd":
            raise ValueError(f"--split goes with mtd: it changes nothing in {options.dataset}")
        more["split"] = options.split
    if options.split_seed is not None:
        if options.dataset not in DRAWN:
            raise ValueError(f"--split-seed goes with {', '.join(DRAWN)}: it changes nothing in {options.dataset}")
        more["seed"] = options.split_seed
    asked = {name: getattr(options, name) for name in ("good", "defects", "masks") if getattr(options, name, [])}
    if asked and options.dataset != "folder":
        raise ValueError(f"--{next(iter(asked))} goes with a folder of one's own, not with --dataset {options.dataset}")
    more |= asked
    return data.load(options.dataset, options.data_root, options.category, **more)


def _take_folder(options) -> None:
    """Have a FOLDER be the dataset.  Raises ValueError where --dataset or --data-root names another one."""
    if not options.folder:
        return
    if options.dataset or options.data_root:
        raise ValueError(f"{options.folder} and --dataset or --data-root exclude each other: give the folder, or the "
                         "dataset")
    options.dataset, options.data_root = "folder", options.folder


def run_check(options) -> None:
    """Print what is unusual, and raise DataError with every problem of every category."""
    from tqdm import tqdm

    from d3ad import data
    _take_folder(options)
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
        for remark in dataset.remarks():
            print(f"  {remark}")
    if problems:
        raise data.DataError("\n".join([f"{len(problems)} problems:", *problems]))
    print(f"{images} images in {len(names)} categories: nothing to fix")


def _say_of(dataset, stream) -> bool:
    """Print a dataset's notes, and a line for each photograph that was left out; returns whether there was one."""
    lost = [left for left in dataset.left_out if left.lost]
    for line in (*dataset.notes, *(f"left out: {left}" for left in lost)):
        print(line, file=stream)
    return bool(lost)


def run_fit(options) -> int:
    """Train on most of the good images, set the threshold on the others, save; a training that was stopped goes on.

    Returns 3 where photographs were left out, each of which is named.
    """
    from d3ad.app import part
    from d3ad.app.judging import LEFT_OUT
    from d3ad.data.given import as_images
    from d3ad.infra.checkpoint import check_replaceable
    from d3ad.infra.devices import pick_device
    from d3ad.infra.processes import launched
    from d3ad.speed.presets import preset
    check_replaceable(options.out)  # before any training
    _take_folder(options)
    changes = {}
    for setting in options.set:
        name, _, value = setting.partition("=")
        try:
            changes[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[name] = value
    if options.device:
        changes["device"] = options.device
    config = Config.profile(options.profile, **changes)
    preset(options.preset)  # before any training
    pick_device(config.device)
    dataset = _dataset(options)
    lost = _say_of(dataset, sys.stdout)
    if dataset.white not in (None, 65535):
        print(f"16-bit images hold {dataset.white.bit_length()} bits: {dataset.white} is read as white")
    part.check_number(len(dataset.train), config, options.held_out, str(options.folder or dataset.root))
    images = as_images(dataset, config.image_size, "train")
    training, is_first = options.out.with_name(options.out.name + ".training"), launched().is_first
    with alone(training / "lock", f"is training {options.out}") if is_first else contextlib.nullcontext():
        if is_first:
            tidy(training)
        detector, num_trained = part.fit_part(images, config, options.held_out, options.false_alarms, training,
                                              options.preset)
        detector.white = dataset.white
        if is_first:
            detector.save(options.out, model_card(detector, dataset, num_trained))
            shutil.rmtree(training, ignore_errors=True)  # its lock is still open, which some disks don't like
    print(f"saved to {options.out}; {detector.guarantee}")
    return LEFT_OUT if lost else 0


def model_card(detector, dataset, num_trained: int) -> str:
    """What a person who finds the model folder wants to know, as Markdown."""
    from d3ad.infra import versions
    paper = Config().to_dict()
    settings = {name: value for name, value in detector.config.to_dict().items() if value != paper[name]}
    return "\n".join([
        "# A D3AD anomaly detector", "",
        f"Trained on {num_trained} good images of {dataset} (fingerprint {dataset.fingerprint()}).", "",
        _sentence(str(detector.guarantee)), "",
        "Use: `python -m d3ad predict THIS_FOLDER NEW_IMAGES --out OUT`, or `from d3ad import D3AD; "
        "D3AD.load(folder)`.", "",
        "Versions: " + ", ".join(f"{name} {versions.version(name)}"
                                 for name in versions.PACKAGES) + f"; d3ad commit {versions.commit()}.", "",
        "Settings that differ from the paper's:", "",
        *(f"- `{name}` = {json.dumps(value)}" for name, value in settings.items()), ""])


def _load(options):
    """The saved detector, with device, batch and processes as asked for."""
    from d3ad.infra.processes import launched
    from d3ad.speed import presets
    detector = presets.load(options.model, options.device or "auto")
    detector.team = launched()
    if options.batch:
        detector.config = detector.config.replace(predict_batch=options.batch)
    return detector


def _model(options):
    """The detector with device, batch and preset as asked for, its threshold, where that comes from, and what the
    results depend on.
    """
    from d3ad.app import portions
    from d3ad.data import tree
    from d3ad.infra.thresholds import threshold_for
    from d3ad.speed import presets
    if options.false_alarms and not options.good:
        raise ValueError("--false-alarms goes with --good FOLDER: the rate is measured on good photographs that were "
                         "not trained on")
    if options.good and options.threshold is not None:
        raise ValueError("--threshold and --good exclude each other: give the threshold, or photographs to set it on")
    if options.preset:
        presets.preset(options.preset)  # before anything is said of thresholds
    detector = _load(options)
    if options.preset and options.preset != detector.preset:
        presets.check_applicable(detector, options.preset)  # no threshold would help
        if options.threshold is None and not options.good:
            raise ValueError(f"no threshold was set under the preset {options.preset!r}: the model's belongs to "
                             f"{detector.preset!r}; give --good FOLDER with good photographs that were not trained on, "
                             "or --threshold X")
        detector = presets.apply(detector, options.preset)
    key = f"{model_hash(options.model)} {options.preset or detector.preset} {detector.config.predict_batch}"
    if options.threshold is not None:
        return detector, options.threshold, f"threshold {options.threshold:g}, as given on the command line", key
    if options.good:
        entries = [entry for entry in tree.collect([options.good]) if entry.kind != "mask"]
        images = [entry for entry in entries if entry.kind == "image"]
        good = tree.only_good(images, options.good)
        if len(good) < len(images):
            print(f"{options.good}: {len(good)} of {len(images)} images lie in folders called good, or outside those "
                  "of defects; these set the threshold", file=sys.stderr)
        scores, lost = portions.scores_of(detector, good, progress=True)
        lost += [entry for entry in entries if entry.kind != "image"]
        _say_left_out(lost, options.good)
        if not len(scores):
            raise ValueError(f"{options.good}: no photograph in it could be read, so no threshold can be set")
        found = threshold_for(scores, options.false_alarms or 0.01)
        return detector, found.value, str(found), key
    threshold = float(detector.calibration.threshold)
    said = str(detector.guarantee or f"threshold {threshold:.4g}, a quantile of training images: new good images "
                                     "exceed it more often")
    return detector, threshold, said, key


def model_hash(folder: Path) -> str:
    """12 hex digits that change with a saved model: name, size and time of each of its files."""
    import hashlib
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    seen = [(file.relative_to(folder).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:12]


def _given_images(options) -> list:
    """Every file that the command names, of folders those below, of - those listed on standard input."""
    from d3ad.data import tree
    given = []
    for name in options.images:
        if name == "-":
            text = os.fsdecode(sys.stdin.buffer.read()) if hasattr(sys.stdin, "buffer") else sys.stdin.read()
            given += [line for line in text.split("\0" if "\0" in text else "\n") if line.strip()]
        else:
            given.append(name)
    return tree.collect(line.rstrip("\r") for line in given)


def _say_left_out(entries, where: str, most: int = 20) -> None:
    """A line for each file that was not judged, at most so many, on standard error."""
    for entry in entries[:most]:
        print(f"left out: {entry.name}: {entry.reason}", file=sys.stderr)
    if len(entries) > most:
        print(f"left out: {len(entries) - most} more; {where}", file=sys.stderr)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def run_predict(options) -> int:
    """Judge every image, write scores.csv, report.html and pictures as they come; 3 where photographs were left out."""
    import time

    from d3ad import data
    from d3ad.app import judging
    detector, threshold, guarantee, key = _model(options)
    tidy(options.out)  # before looking for photographs: out may lie among them
    entries = judging.without_results(_given_images(options), options.out)
    if not any(entry.kind == "image" or entry.lost for entry in entries):
        masks = sum(entry.kind == "mask" for entry in entries)
        raise data.DataError(f"{options.images[0]}: images not found in it or below"
                             + f", except {masks} taken for masks because of their folder's name" * bool(masks)
                             + "; give the folder that holds them")
    started, guarantee = time.monotonic(), _sentence(guarantee)
    found = judging.judge(detector, entries, options.out, threshold, guarantee, options.raw, options.pictures,
                          options.coco, key, progress=True)
    if not detector.team.is_first:
        return 0
    rate = found.num_new / (time.monotonic() - started)
    _say_left_out(found.left_out, f"scores.csv in {options.out} names all")
    masks = f"; {found.num_masks} masks not judged" if found.num_masks else ""
    lost = f"; {len(found.left_out)} files left out" if found.left_out else ""
    print(f"{found.num_flagged} of {found.num_judged} images flagged, {rate:.1f} images a second{masks}{lost}; "
          f"{options.out / 'report.html'}")
    if options.threshold is None and not options.good and not detector.guarantee:
        print(guarantee)
    return judging.LEFT_OUT if found.num_lost else 0


def run_watch(options) -> int:
    """Judge what arrives until Ctrl-C; 3 where photographs could not be judged."""
    from d3ad.app import judging, watch
    detector, threshold, guarantee, key = _model(options)
    print(f"{_sentence(guarantee)} Watching {options.folder}; Ctrl-C ends.", file=sys.stderr)
    found = judging.Summary()
    try:
        watch.watch(detector, options.folder, options.out, threshold, options.interval, options.raw, options.pictures,
                    key, lambda line: print(line, flush=True), summary=found)
    except KeyboardInterrupt:
        lost = f", {found.num_lost} could not be judged" if found.num_lost else ""
        print(f"\n{found.num_judged} photographs judged{lost}; the same command goes on", file=sys.stderr)
    return judging.LEFT_OUT if found.num_lost else 0


def run_export(options) -> None:
    """Write the networks as torch.export programs, and what makes verdicts of them."""
    from d3ad import D3AD
    from d3ad.app import export
    print(*export.export(D3AD.load(options.model, device="cpu"), options.out), sep="\n")


def run_evaluate(options) -> int:
    """Print the metrics as JSON; 3 where files of the dataset were left out."""
    from d3ad.app import evaluating
    from d3ad.app.judging import LEFT_OUT
    from d3ad.study import outcome
    detector, dataset = _load(options), _dataset(options)
    lost = _say_of(dataset, sys.stderr)
    if dataset.labels("test").unique().tolist() != [0, 1]:
        raise ValueError(f"{dataset}: metrics need both good and anomalous test images")
    without = [sample for sample in dataset.test if sample.label and sample.mask is None]
    if without:
        print(f"{len(without)} anomalous images have no mask, such as {without[0].image}: P-AUROC and PRO are left "
              "empty", file=sys.stderr)
    keep_small = options.small_regions == "keep"
    if options.normalisation == "train" and detector.team.count == 1:
        numbers = evaluating.evaluate(detector, dataset, keep_small, not without, outcome.AREAS, progress=True)
    else:  # the range of all test images takes them all at once
        masks = None if without else dataset.masks("test", detector.config.image_size, keep_small)
        prediction = detector.predict(dataset, normalisation=options.normalisation, progress=True)
        numbers = outcome.evaluate(prediction, dataset.labels("test"), masks)
    print(json.dumps({name: None if value is None else round(value, 4) for name, value in numbers.items()}))
    return LEFT_OUT if lost else 0


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
    from d3ad.app import judging
    from d3ad.data.tree import collect
    from d3ad.speed import benchmark

    def judge(detector, folder: Path) -> None:
        judging.judge(detector, collect([folder]), folder / "out", float(detector.calibration.threshold), "",
                      pictures="none")

    for part in (options.only,) if options.only else benchmark.PARTS:
        file = options.out / f"{part}.json"
        rows = benchmark.measured(part, options.size, options.batch, file, judge, options.long)
        print(benchmark.as_text(rows), f"written: {file}", sep="\n")
        if part == "growth":
            from d3ad.study import figures
            picture = io.BytesIO()
            figures.growth(rows).savefig(picture, format="png")
            write_whole(file.with_suffix(".png"), picture.getvalue())
