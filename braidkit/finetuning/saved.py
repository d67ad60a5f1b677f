"""Fitted estimators as directories: chains, reward and judge, to ask and to sample later."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from sklearn.utils.validation import check_is_fitted

from braidkit import __version__, persistence
from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import CheckpointError, InvalidParameterError
from braidkit.parameters import resolve_device

# Folders of the fine-tuned chain, of the one that it came from, and of all else.
MODEL, PRETRAINED, STATE = "model", "pretrained", "finetuner"
# Raise it whenever what the state holds changes within one version.
FORM = 3
# Parameters that belong to the run that is over.
_LEFT_OUT = ("pretrained", "selection", "checkpoint_dir")


class SavedDesigner:
    """The part of an estimator of designs that saves and loads it."""

    get_params: Callable[..., dict[str, Any]]
    device: str
    model_: DiffusionModel
    pretrained_: DiffusionModel

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a directory: chains, reward, judge and parameters.

        They are in the folders "model", "pretrained" and "finetuner", as safetensors and JSON. Measured rows are not
        written, nor are a `selection` and a `checkpoint_dir`. A language model under a chain stays where it is.

        Raises
        ------
        CheckpointError
            If one of the folders holds anything else than an earlier save, or the estimator holds an object of another
            package, such as a network of the user's own, or a regressor of scikit-learn.
        """
        parts, folder = saved_parts(self), persistence.read_path("directory", directory)
        for name, write in parts.items():
            write(folder / name)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; also the directory of a run of ``braidkit design``.

        Raises
        ------
        CheckpointError
            If it is not there, is damaged or another estimator's, or was saved by another version of braidkit; then the
            message says what can still be read.
        """
        folder = persistence.read_path("directory", directory)
        if not persistence.is_saved(folder / STATE):
            raise CheckpointError(
                f"{folder} holds no saved estimator; pass a directory that save wrote, or that of a finished run of "
                "braidkit design."
            )
        config, tensors = persistence.load(folder / STATE)
        if "state" not in config:
            raise CheckpointError(f"{folder / STATE} holds no estimator, but another save; save the estimator again.")
        if (config["version"], config["form"]) != (__version__, FORM):
            raise CheckpointError(
                f"{folder} was saved by braidkit {config['version']} (form {config['form']}), and this is "
                f"{__version__} (form {FORM}), which cannot read its reward and judge. Designs can still be "
                f"drawn, by DiffusionModel.from_pretrained({str(folder / MODEL)!r}).sample(n) or "
                f"braidkit sample {folder / MODEL}; to score, fit again, or use that version."
            )
        state = persistence.from_parts(json.loads(config["state"]), tensors)
        if not issubclass(state["class"], cls):
            raise CheckpointError(f"{folder} holds a {state['class'].__name__}, not a {cls.__name__}.")
        chains = {}
        for name, digest in config["chains"].items():
            if persistence.saved_digest(folder / name) != digest:
                raise CheckpointError(
                    f"{folder / name} is missing, or not what was saved together with {folder / STATE}; save again."
                )
            chains[name] = DiffusionModel.from_pretrained(folder / name)
        device = resolve_device(state["parameters"]["device"])
        estimator = state["class"](**state["parameters"])
        estimator.__dict__.update(state["fitted"])
        if hasattr(estimator, "reward_check_") and not hasattr(estimator, "checked_reward_"):
            estimator.checked_reward_ = estimator.reward_
        estimator.model_, estimator.pretrained_ = (chains[name].to(device) for name in (MODEL, PRETRAINED))
        if config["pretrained_was_given"]:
            estimator.pretrained = estimator.pretrained_
        return estimator


def saved_parts(estimator: Any) -> dict[str, Callable[[Path], None]]:
    """Functions that write the folders of a saved estimator, by name, in the order of writing.

    Raises
    ------
    CheckpointError
        If the estimator cannot be saved.
    """
    check_is_fitted(estimator)
    if not isinstance(getattr(estimator, "model_", None), DiffusionModel):
        raise InvalidParameterError(f"a {type(estimator).__name__} has no chain of its own to save.")
    chains = {MODEL: estimator.model_, PRETRAINED: estimator.pretrained_}
    parameters = {n: v for n, v in estimator.get_params(deep=False).items() if n not in _LEFT_OUT}
    fitted = {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not name.startswith("_") and not isinstance(value, DiffusionModel)
    }
    if "checked_reward_" in fitted and fitted["checked_reward_"] is fitted["reward_"]:
        del fitted["checked_reward_"]  # one and the same, until loading
    state, tensors = persistence.to_parts({"class": type(estimator), "parameters": parameters, "fitted": fitted})

    def write_state(path: Path) -> None:
        config = {
            "version": __version__,
            "form": FORM,
            "pretrained_was_given": estimator.pretrained is not None,
            "chains": {name: persistence.saved_digest(path.parent / name) for name in chains},
            "state": json.dumps(state),
        }
        persistence.save(path, config=config, tensors=tensors)

    return {name: chain.save_pretrained for name, chain in chains.items()} | {STATE: write_state}
