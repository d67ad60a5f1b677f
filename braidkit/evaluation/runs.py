"""One run of a comparison: a method, or a reference, designs for one seed and is judged."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.base import clone
from sklearn.utils import _safe_indexing

from braidkit.datasets import OfflineSplit
from braidkit.diffusion import DiffusionModel
from braidkit.evaluation.cost import MemoryRise, count_network_passes
from braidkit.evaluation.metrics import shuffle_dinucleotides, validity_measures
from braidkit.evaluation.run_cache import Figures, RunCache
from braidkit.exceptions import InvalidDesignError
from braidkit.oracles import refuse_shared_rows
from braidkit.persistence import FREE, digest
from braidkit.spaces import is_strings
from braidkit.training import interrupts_propagate

REFERENCES = ("offline", "pretrained", "natural", "shuffled")
STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": np.mean,
    "median": np.median,
    "95th percentile": lambda values: np.quantile(values, 0.95),
}
# Natural rows that designs are compared with: more would slow the edit distances and change little.
MAX_NATURAL = 2000


@dataclass
class Bench:
    """The settings that all runs share."""

    split: OfflineSplit
    natural: Sequence[str]
    oracles: dict[str, Any]
    valid: Callable[[Any], Any] | None
    n_designs: int
    cache_dir: Path | None
    data_key: str

    def halves(self, seed: int) -> tuple[Any, Any]:
        """Natural designs as the reference, and other natural designs to compare with it."""
        order = RandomState(seed).permutation(len(self.natural))
        n_reference = min(len(order) // 2, MAX_NATURAL)
        rest = order[n_reference : n_reference + self.n_designs]
        return _safe_indexing(self.natural, order[:n_reference]), _safe_indexing(self.natural, rest)


@dataclass
class Outcome:
    """A run's designs with their rewards and measures, or its failure."""

    method: str
    seed: int
    designs: list[Any] = field(default_factory=list)
    rewards: dict[str, np.ndarray] = field(default_factory=dict)
    measures: list[tuple[str, str, float]] = field(default_factory=list)  # source, metric, value
    failure: dict[str, str] | None = None


@dataclass
class Run:
    """One method, or one of the references (without an estimator), for one seed."""

    name: str
    estimator: Any
    seed: int
    chain: DiffusionModel | Exception | None

    def outcome(self, bench: Bench) -> Outcome:
        """Design and judge. An error becomes a failure."""
        outcome, stage = Outcome(self.name, self.seed), ["design"]
        try:
            with interrupts_propagate():
                designs, figures = self._refer(bench) if self.estimator is None else self._design(bench, stage)
            self._judge(outcome, designs, bench, stage)
            outcome.measures += [(source, *figure) for source, own in figures.items() for figure in own.items()]
            outcome.designs = list(designs)
        except Exception as error:  # any error: the other methods continue
            trace = "".join(traceback.format_exception(error))
            failure = {"stage": stage[-1], "error": f"{type(error).__name__}: {error}", "traceback": trace}
            return Outcome(self.name, self.seed, failure=failure)
        return outcome

    def _refer(self, bench: Bench) -> tuple[Any, Figures]:
        """The designs of a reference."""
        if self.name == "pretrained":
            return self._given_chain().sample(bench.n_designs, random_state=self.seed), {}
        if self.name == "offline":
            rows = RandomState(self.seed).permutation(len(bench.split.X_offline))[: bench.n_designs]
            return _safe_indexing(bench.split.X_offline, rows), {}
        rows = bench.halves(self.seed)[1]
        return (shuffle_dinucleotides(rows, self.seed) if self.name == "shuffled" else rows), {}

    def _design(self, bench: Bench, stage: list[str]) -> tuple[Any, Figures]:
        """The designs of a method with its promises and its cost, from the cache if they are there."""
        estimator = clone(self.estimator)
        own = estimator.get_params(deep=False)
        if "random_state" in own:
            estimator.set_params(random_state=self.seed)
        if "pretrained" in own and self.chain is not None:
            stage.append("pretraining")
            estimator.set_params(pretrained=self._given_chain())
        chain = getattr(estimator, "pretrained", None)
        cache = RunCache(bench.cache_dir)
        key = digest([estimator, bench.data_key, bench.n_designs])
        stored = cache.load(self.name, self.seed, key)
        if stored is not None:
            return stored
        with count_network_passes(chain) as passes, MemoryRise() as memory:
            stage.append("fit")
            start = time.perf_counter()
            estimator.fit(bench.split.X_offline, bench.split.y_offline)
            fitted = time.perf_counter()
            stage.append("sample")
            designs = estimator.sample(bench.n_designs, random_state=self.seed)
            sampled = time.perf_counter()
        cost = {"fit (s)": fitted - start, "sample (s)": sampled - fitted}
        cost |= {"network passes (rows)": float(passes.rows), "memory rise (MiB)": memory.host}
        if memory.gpu is not None:
            cost["GPU memory rise (MiB)"] = memory.gpu
        parameters = {name: repr(value) for name, value in own.items() if name not in FREE}
        figures = {"promised": promises(estimator), "cost": cost}
        cache.store(self.name, self.seed, key, designs, figures, parameters)
        return designs, figures

    def _judge(self, outcome: Outcome, designs: Any, bench: Bench, stage: list[str]) -> None:
        """Add the rewards and measures of the designs to the outcome."""
        for name, oracle in bench.oracles.items():
            stage.append(f"oracle {name}")
            if self.name == "natural" and _knows(oracle, designs):
                continue
            values = np.asarray(getattr(oracle, "predict", oracle)(designs), dtype=np.float64)
            if values.shape != (len(designs),) or not np.isfinite(values).all():
                raise InvalidDesignError(
                    f"the oracle {name!r} must give one finite reward for each of {len(designs):,} designs; got "
                    f"shape {values.shape} with {np.count_nonzero(~np.isfinite(values)):,} that are not finite."
                )
            outcome.rewards[name] = values
            outcome.measures += [(name, statistic, float(f(values))) for statistic, f in STATISTICS.items()]
        stage.append("measures")
        measures: dict[str, float] = {}
        if bench.valid is not None:
            measures["valid (share)"] = float(np.mean(np.asarray(bench.valid(designs), dtype=bool)))
        if is_strings(designs):
            offline = set(bench.split.X_offline)
            measures["not in the offline data (share)"] = float(np.mean([row not in offline for row in designs]))
            measures |= validity_measures(designs, bench.halves(self.seed)[0], random_state=self.seed)
        outcome.measures += [("designs", metric, value) for metric, value in measures.items()]

    def _given_chain(self) -> DiffusionModel:
        """The chain of the seed. Raises the error of its training."""
        if isinstance(self.chain, Exception):
            raise self.chain
        assert self.chain is not None
        return self.chain


def promises(estimator: Any) -> dict[str, float]:
    """The history of a fine-tuned chain at the checkpoint that was kept; empty for other methods."""
    history = getattr(estimator, "history_", {})
    if "iteration" not in history:
        return {}
    kept = history["iteration"].index(estimator.best_iter_)
    return {name: values[kept] for name, values in history.items()}


def _knows(oracle: Any, designs: Any) -> bool:
    """Whether an oracle was trained on any of these designs."""
    try:
        refuse_shared_rows(oracle, designs)
    except InvalidDesignError:
        return True
    return False
