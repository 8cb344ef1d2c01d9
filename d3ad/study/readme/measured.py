"""What results/ holds of each profile."""
import pandas as pd

from d3ad.config import Config
from d3ad.infra.files import ROOT, read_json
from d3ad.study.ablations import with_averages
from d3ad.study.long_runs import TEXT
from d3ad.study.settings import Study, settings_hash, study_profiles


def table(profile: str, name: str) -> pd.DataFrame | None:
    """results/<profile>/<name>.csv, or None where it wasn't measured."""
    file = ROOT / "results" / profile / f"{name}.csv"
    return pd.read_csv(file, dtype=TEXT) if file.exists() else None


def notes(profile: str, name: str) -> dict:
    """results/<profile>/<name>.json; empty where there is none."""
    file = ROOT / "results" / profile / f"{name}.json"
    return read_json(file) if file.exists() else {}


def frames(name: str) -> dict[str, pd.DataFrame]:
    """The profiles whose results hold that table, in the order of `study_profiles`, smoke left out."""
    frames = {profile: table(profile, name) for profile in study_profiles() if profile != "smoke"}
    return {profile: frame for profile, frame in frames.items() if frame is not None}


def of_split(profile: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the split that counts first in this profile."""
    return frame[frame["split"] == Study.profile(profile).split]


def with_long(profile: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of benchmark.csv, and those of results/long that it lacks: measured since notebook 07 ran.  A method that
    has every category by now gets its averages.
    """
    long, same = table("long", profile), ["dataset", "category", "split", "seed", "method"]
    if long is None:
        return frame
    known = pd.MultiIndex.from_frame(frame[same])
    newer = long[~pd.MultiIndex.from_frame(long[same]).isin(known)]
    both = pd.concat([frame, newer[[name for name in newer if name in frame]]], ignore_index=True)
    single = both[both["category"] != "Average"]
    counts = single.groupby("method").size()
    whole = set(newer["method"]) & set(counts.index[counts == counts.max()])
    averages = with_averages(single[single["method"].isin(whole)]) if whole else both[:0]
    return pd.concat([both, averages[averages["category"] == "Average"]], ignore_index=True)


def is_current(profile: str) -> bool:
    """Whether the results were computed with the settings that the profile has today."""
    used = {entry["config"] for path, entry in notes(profile, "provenance").items() if path.endswith("/benchmark.csv")}
    return used == {settings_hash(Config.profile(profile), Study.profile(profile))}
