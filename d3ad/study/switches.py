"""Where the paper's text and the authors' code differ, or leave something open, and what each choice changes."""
from dataclasses import dataclass

import pandas as pd

from d3ad.config import Config
from d3ad.study import ablations
from d3ad.study.workspace import Workspace


@dataclass(frozen=True)
class Switch:
    """A place where the paper's text and the authors' code differ, or leave something open."""

    name: str
    paper: str       # what the text says
    code: str        # what the authors' code does
    default: str     # what this repository does unless told otherwise
    setting: str     # the change that is measured, in words
    changes: dict    # and as settings

    def applies(self, config: Config) -> bool:
        """Whether it changes anything in a profile; how features are adapted does not where they aren't."""
        if {"adapt_loss", "adapt_batch_norm"} & set(self.changes) and not config.adapt_epochs:
            return False
        return any(getattr(config, key) != value for key, value in self.changes.items())


SWITCHES = (
    Switch("spacing of the steps", "t = T-hat, ..., 1", "one step lower: 0.9 T-hat, ..., 0", "the paper's",
           "the code's grid", dict(spacing="leading")),
    Switch("a training image among its own neighbours", "not said", "yes, at distance 0", "the code's", "left out",
           dict(include_self=False)),
    Switch("latent at test", "E(x)", "a sample of the posterior", "the posterior's mean", "a sample",
           dict(latent_sample=True)),
    Switch("guidance eta", "0, or 7-10", "4", "per profile", "eta = 4", dict(guidance=4.0)),
    Switch("guidance eta", "0, or 7-10", "4", "per profile", "eta = 7", dict(guidance=7.0)),
    Switch("guidance eta", "0, or 7-10", "4", "per profile", "eta = 10", dict(guidance=10.0)),
    Switch("loss of the domain adaptation", "Eq. 10, at each location", "cosine of whole flattened blocks",
           "the paper's", "flattened", dict(adapt_loss="flattened")),
    Switch("batch normalisation in the adaptation", "not said", "statistics of each batch", "the code's",
           "the running statistics, fixed", dict(adapt_batch_norm="running")),
    Switch("epochs of the domain adaptation", "0-3", "1", "per profile", "3 epochs", dict(adapt_epochs=3)),
    Switch("normalisation of the maps", "\"normalized\"", "min-max over the test set", "per profile",
           "min-max over the test set", dict(normalisation="test")),
    Switch("normalisation of the maps", "\"normalized\"", "min-max over the test set", "per profile",
           "ranges of normal training images", dict(normalisation="train")),
    Switch("standardised maps (ours)", "no", "no", "per profile", "off", dict(standardise=())),
    Switch("distance of features (ours)", "cosine", "cosine", "per profile", "cosine", dict(feature_distance="cosine")),
    Switch("DDIM steps S", "10", "10", "per profile", "10", dict(num_steps=10)),
    Switch("smallest bin", "2", "2", "2", "1: no minimum", dict(min_bin=1)),
)


def effects(workspace: Workspace) -> pd.DataFrame:
    """The second ledger: what each `Switch` changes, as differences `effect_*` in points from the profile's default.

    Measured on the runs of the profile's own seed that spreads are taken over, averaged over categories.
    """
    runs = [run for run in workspace.seed_runs() if run.config.seed == workspace.config.seed]
    applying = [switch for switch in SWITCHES if switch.applies(workspace.config)]
    variants = {"default": {}} | {f"{switch.name}: {switch.setting}": switch.changes for switch in applying}
    frame = ablations.summary(workspace, variants, runs, columns=ablations.AS_REPORTED)
    means = ablations.method_means(frame)
    base = means.loc["default"]
    rows = []
    for switch in applying:
        mean = means.loc[f"{switch.name}: {switch.setting}"]
        changes = {f"effect_{m}": mean[f"measured_{m}"] - base[f"measured_{m}"] for m in ablations.METRICS}
        rows.append(dict(difference=switch.name, paper=switch.paper, authors_code=switch.code, here=switch.default,
                         changed_to=switch.setting, **changes))
    rows.append(dict(difference="definition of PRO", paper="Bergmann et al. 2019",
                     authors_code="200 thresholds, divided by their largest FPR",
                     here="exact, official", changed_to="200 thresholds",
                     effect_pro=base["measured_pro_200"] - base["measured_pro"]))
    return pd.DataFrame(rows)
