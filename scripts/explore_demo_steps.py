"""How short the trainings of `demo` may be: on synthetic images of a seed that no table shows.

    python scripts/explore_demo_steps.py --work DIR [--out docs/demo_steps.csv]

Appends a row per (autoencoder steps, diffusion steps, category) to the CSV, and skips those that stand there.
"""
import argparse
import csv
from pathlib import Path

from d3ad.study.workspace import open_workspace

ROOT = Path(__file__).resolve().parent.parent
SEED, CATEGORIES = 7, ("board", "washer", "plank")
STEPS = ((1000, 600), (600, 400), (400, 300))
COLUMNS = ["autoencoder_steps", "train_steps", "category", "i_auroc", "p_auroc", "pro"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, help="where trainings are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "demo_steps.csv")
    args = parser.parse_args()
    for autoencoder_steps, train_steps in STEPS:
        workspace = open_workspace("demo", out=args.work, seed=SEED, autoencoder_steps=autoencoder_steps,
                                   train_steps=train_steps)
        for run in workspace.runs():
            old = list(csv.reader(args.out.open(encoding="utf-8"))) if args.out.exists() else []
            key = [str(autoencoder_steps), str(train_steps), run.category]
            if run.category not in CATEGORIES or key in [row[:3] for row in old]:
                continue
            numbers = run.numbers()
            with args.out.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if not old:
                    writer.writerow(COLUMNS)
                writer.writerow(key + [round(100 * numbers[metric], 2) for metric in COLUMNS[3:]])
            print(*key, flush=True)


if __name__ == "__main__":
    main()
