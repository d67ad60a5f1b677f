"""Run several methods on one split over several seeds, judge them by the same oracles, and compare them."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import ks_2samp
from scipy.stats import t as student
from tqdm.auto import tqdm

from braidkit.data import read_measurements
from braidkit.datasets import OfflineSplit
from braidkit.diffusion import DiffusionModel
from braidkit.evaluation.runs import REFERENCES, Bench, Outcome, Run
from braidkit.exceptions import InvalidParameterError
from braidkit.oracles import refuse_shared_rows
from braidkit.parameters import check_number
from braidkit.persistence import digest, is_saved, make_folder, read_path
from braidkit.progress import Progress
from braidkit.training import interrupts_propagate

MEASURE = ["source", "metric"]
Chains = DiffusionModel | Callable[[int], DiffusionModel] | None


@dataclass(frozen=True)
class Comparison:
    """Results of several methods over several seeds.

    Attributes
    ----------
    results : DataFrame
        One row for each "method", "seed", "source" and "metric", with its "value". Sources are the oracles by name
        (with the "mean", "median", "95th percentile" and "Kolmogorov-Smirnov" distance of their rewards from those of
        "natural"); "designs" for measures of the designs alone; "promised" for the history of a fine-tuned chain at
        the checkpoint kept (iteration, mean, lower, penalty, judge, kl); and "cost". The references are "offline"
        (rows that the methods saw), "pretrained" (draws from the shared chain), "natural" (measured rows that the
        methods did not see) and "shuffled" (natural rows with their neighbouring letters shuffled). An oracle that was
        trained on natural rows does not judge them.
    designs : DataFrame
        One row a design: "method", "seed", "design", and a column for each oracle.
    failures : DataFrame
        Runs that are missing from `results`: "method", "seed", "stage", "error" and "traceback".
    """

    results: pd.DataFrame
    designs: pd.DataFrame
    failures: pd.DataFrame

    def summary(self, confidence: float = 0.95) -> pd.DataFrame:
        """Means over the seeds, with Student's t-intervals.

        Parameters
        ----------
        confidence : float, default=0.95

        Returns
        -------
        summary : DataFrame
            Indexed by method, source and metric; columns "mean", "low", "high" (nan for a single seed), "n_seeds".
        """
        return _intervals(self.results, confidence)

    def differences(self, baseline: str, confidence: float = 0.95) -> pd.DataFrame:
        """Differences of each method from one of them, paired by seed.

        Parameters
        ----------
        baseline : str
            A method, or a reference.
        confidence : float, default=0.95

        Returns
        -------
        differences : DataFrame
            As for `summary`, of the value minus the baseline's value, over the seeds that both have.
        """
        results = self.results
        if baseline not in set(results["method"]):
            names = ", ".join(map(repr, results["method"].unique()))
            raise InvalidParameterError(f"baseline must be one of {names}; got {baseline!r}.")
        keys = ["seed", *MEASURE]
        others = results[results["method"] != baseline]
        paired = others.merge(results[results["method"] == baseline], on=keys, suffixes=("", " of the baseline"))
        return _intervals(paired.assign(value=paired["value"] - paired["value of the baseline"]), confidence)


def compare(
    methods: Mapping[str, Any],
    split: OfflineSplit,
    *,
    oracles: Mapping[str, Any],
    seeds: Sequence[int] = (0, 1, 2),
    n_designs: int = 1000,
    pretrained: Chains = None,
    valid: Callable[[Any], Any] | None = None,
    natural: Sequence[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    n_jobs: int | None = 1,
    verbose: int = 0,
) -> Comparison:
    """Fit every method on the offline data for every seed, sample from it, and judge the designs by oracles.

    For each seed all methods that have a `pretrained` parameter get the same chain, and the seed as `random_state`.
    The methods' own parameters set their budgets. Network passes, seconds and memory are reported. Methods that run
    side by side, or on a busy machine, take more seconds than they would alone.

    A method that raises is listed in `failures`, and the others continue. Ctrl-C ends the comparison and returns the
    finished runs; the others are listed as not run.

    Parameters
    ----------
    methods : mapping of str to estimator
        Unfitted, with ``fit(X, y)`` and ``sample(n, random_state)``; clones are used.
    split : OfflineSplit
        From `offline_split`. Methods see the offline data, and nothing else.
    oracles : mapping of str to oracle
        Each an object with ``predict(X)``, or a callable, that gives one finite reward a design. One that keeps the
        digests of its training rows is refused if any is among the offline data.
    seeds : sequence of int, default=(0, 1, 2)
        Different whole numbers >= 0.
    n_designs : int, default=1000
    pretrained : DiffusionModel or callable, optional
        A trained chain for all seeds, or ``pretrained(seed)`` that trains one, which splits with one `cache_dir` share.
        Without it methods keep their own.
    valid : callable, optional
        ``valid(designs)`` says of each whether it is valid. By default the ``is_valid`` of the first oracle that has
        one.
    natural : sequence of str, optional
        Measured sequences that no method saw, for scale: half of them (at most 2,000) are the reference of all
        measures. By default the oracle's share of the split, or the offline data if it is empty.
    cache_dir : path-like, optional
        Keep chains and designs here. A run whose method, parameters, data, chain and seed are as before is not done
        again; oracles may change. Remove the directory when the code of a method changes.
    n_jobs : int, default=1
        Runs side by side, in processes of their own.
    verbose : int, default=0
        Show a progress bar if not 0.

    Returns
    -------
    comparison : Comparison
        ``results``, ``designs``, ``failures``, ``summary()``, ``differences(baseline)``.

    Raises
    ------
    InvalidParameterError
        If a method, an oracle, a seed or a number is not valid.
    InvalidDesignError
        If an oracle was trained on offline data.

    Examples
    --------
    >>> from braidkit import GPBonusReward, make_utr, offline_split
    >>> from braidkit.baselines import SMCSampler
    >>> from braidkit.diffusion import SimplexDiffusion
    >>> from braidkit.evaluation import compare
    >>> from braidkit.oracles import UTRLandscape
    >>> X, y = make_utr(200, random_state=0)
    >>> split, truth = offline_split(X, y, random_state=0), UTRLandscape()
    >>> chain = SimplexDiffusion(truth.space, n_steps=3).fit(X, max_iter=5, random_state=0)
    >>> methods = {
    ...     f"alpha = {alpha}": SMCSampler(alpha=alpha, reward=GPBonusReward(max_iter=5), n_particles=16)
    ...     for alpha in (1.0, 0.1)
    ... }
    >>> comparison = compare(
    ...     methods, split, oracles={"truth": truth}, seeds=(0, 1), n_designs=16, pretrained=chain
    ... )
    >>> list(comparison.differences("alpha = 1.0").columns)
    ['mean', 'low', 'high', 'n_seeds']
    """
    _check(methods, split, oracles, seeds, n_designs, pretrained)
    if cache_dir is not None:
        make_folder(read_path("cache_dir", cache_dir))
    for oracle in oracles.values():
        refuse_shared_rows(oracle, split.X_offline)
    if natural is None:
        natural = split.X_oracle if len(split.X_oracle) else split.X_offline
    if valid is None:
        valid = next((oracle.is_valid for oracle in oracles.values() if hasattr(oracle, "is_valid")), None)
    bench = Bench(
        split=split,
        natural=natural,
        oracles=dict(oracles),
        valid=valid,
        n_designs=n_designs,
        cache_dir=None if cache_dir is None else read_path("cache_dir", cache_dir),
        data_key=digest([np.asarray(split.X_offline), split.y_offline]),
    )
    chains = dict(
        zip(seeds, Parallel(n_jobs)(delayed(_shared_chain)(pretrained, seed, bench) for seed in seeds), strict=True)
    )
    names = [name for name in REFERENCES if name != "pretrained" or pretrained is not None]
    runs = [Run(name, None, seed, chains[seed]) for seed in seeds for name in names]
    runs += [Run(name, methods[name], seed, chains[seed]) for seed in seeds for name in methods]
    done: dict[tuple[str, int], Outcome] = {}
    with Progress(len(runs), "comparison", shown=bool(verbose)) as progress:
        try:
            for outcome in Parallel(n_jobs, return_as="generator_unordered")(
                delayed(run.outcome)(bench) for run in runs
            ):
                done[outcome.method, outcome.seed] = outcome
                progress.update()
        except KeyboardInterrupt:
            tqdm.write(f"comparison: stopped by the user, {len(done)} of {len(runs)} runs are done")
    order = [(name, seed) for name in [*methods, *names] for seed in seeds]
    return _collect([done.get(key) or _not_run(*key) for key in order], list(oracles))


def t_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent values, and the ends of its t-interval: nan for fewer than two.

    Examples
    --------
    >>> mean, low, high = t_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(low, 2), mean, round(high, 2)
    (-0.48, 2.0, 4.48)
    """
    check_number("confidence", confidence, low=0, high=1, above=True)
    if confidence == 1:
        raise InvalidParameterError("confidence must be below 1, where an interval has no end; got 1.")
    values = read_measurements(values)
    if not len(values):
        raise InvalidParameterError("values is empty; pass at least one number.")
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, np.nan, np.nan
    reach = float(student.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return mean, mean - reach, mean + reach


def _shared_chain(pretrained: Chains, seed: int, bench: Bench) -> DiffusionModel | Exception | None:
    """The chain of a seed: the one given, a cached one, or one trained now; the error if that fails."""
    if pretrained is None or isinstance(pretrained, DiffusionModel):
        return pretrained
    directory = None
    if bench.cache_dir is not None:
        directory = bench.cache_dir / f"pretrained-{seed}-{digest(pretrained)}"
        if is_saved(directory):
            return DiffusionModel.from_pretrained(directory)
    try:
        with interrupts_propagate():
            chain = pretrained(seed)
        chain.check_trained()
    except Exception as error:  # of any kind: methods that need no chain shall go on
        return error
    if directory is not None:
        chain.save_pretrained(directory)
    return chain


def _not_run(method: str, seed: int) -> Outcome:
    """The outcome of a run that Ctrl-C prevented."""
    failure = {"stage": "not run", "error": "stopped by the user; call again to go on", "traceback": ""}
    return Outcome(method, seed, failure=failure)


def _collect(outcomes: list[Outcome], oracles: list[str]) -> Comparison:
    """The tables of all runs."""
    natural = {o.seed: o.rewards for o in outcomes if o.method == "natural"}
    results: list[tuple[str, int, str, str, float]] = []
    for o in outcomes:
        results += [(o.method, o.seed, *measure) for measure in o.measures]
        for name, own in o.rewards.items():
            if o.method != "natural" and name in natural.get(o.seed, {}):
                distance = float(ks_2samp(own, natural[o.seed][name]).statistic)
                results.append((o.method, o.seed, name, "Kolmogorov-Smirnov", distance))
    designs: list[pd.DataFrame] = []
    for outcome in outcomes:
        table = pd.DataFrame({"method": outcome.method, "seed": outcome.seed, "design": outcome.designs})
        designs.append(table.assign(**{name: outcome.rewards.get(name, np.nan) for name in oracles}))
    failures = [{"method": o.method, "seed": o.seed} | o.failure for o in outcomes if o.failure is not None]
    return Comparison(
        results=pd.DataFrame(results, columns=["method", "seed", "source", "metric", "value"]),
        designs=pd.concat(designs, ignore_index=True),
        failures=pd.DataFrame(failures, columns=["method", "seed", "stage", "error", "traceback"]),
    )


def _check(
    methods: Mapping[str, Any],
    split: Any,
    oracles: Mapping[str, Any],
    seeds: Sequence[int],
    n_designs: int,
    pretrained: Chains,
) -> None:
    """Raise for arguments that are not valid, before any work."""
    if not isinstance(split, OfflineSplit):
        raise InvalidParameterError(f"split must be what offline_split gives; got {split!r:.60}.")
    if not isinstance(methods, Mapping) or not isinstance(oracles, Mapping):
        raise InvalidParameterError("methods and oracles must be dictionaries, by name.")
    if not methods:
        raise InvalidParameterError("methods is empty; pass at least one estimator by its name.")
    for name, method in methods.items():
        if name in REFERENCES:
            raise InvalidParameterError(f"a method cannot be called {name!r}, as a reference is; choose another name.")
        needs = ("fit", "sample", "get_params")
        if isinstance(method, type) or not all(callable(getattr(method, needed, None)) for needed in needs):
            raise InvalidParameterError(f"method {name!r} must be an estimator with fit and sample; got {method!r}.")
    for name, oracle in oracles.items():
        if name in ("method", "seed", "design", "designs", "promised", "cost"):
            raise InvalidParameterError(f"an oracle cannot be called {name!r}, as a column is; choose another name.")
        if not callable(getattr(oracle, "predict", oracle)):
            raise InvalidParameterError(f"oracle {name!r} must have predict(X) or be callable; got {oracle!r}.")
    if not isinstance(seeds, Iterable):
        raise InvalidParameterError(f"seeds must be different whole numbers >= 0; got {seeds!r}.")
    whole = all(isinstance(seed, numbers.Integral) and seed >= 0 for seed in seeds)
    if len(seeds) == 0 or not whole or len(set(seeds)) < len(seeds):
        raise InvalidParameterError(f"seeds must be different whole numbers >= 0; got {seeds!r}.")
    check_number("n_designs", n_designs, low=1, whole=True)
    if isinstance(pretrained, DiffusionModel):
        pretrained.check_trained()
    elif pretrained is not None and not callable(pretrained):
        raise InvalidParameterError(
            f"pretrained must be a trained DiffusionModel, a function that gives one for a seed, or None; got "
            f"{pretrained!r}."
        )


def _intervals(results: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Mean, interval and number of seeds of each method, source and metric; nan values do not count."""
    index = ["method", *MEASURE]
    groups = results.dropna(subset="value").groupby(index, sort=False)["value"]
    rows = {key: (*t_interval(values.to_numpy(), confidence), len(values)) for key, values in groups}
    return pd.DataFrame(
        list(rows.values()),
        columns=["mean", "low", "high", "n_seeds"],
        index=pd.MultiIndex.from_tuples(list(rows), names=index) if rows else None,
    )
