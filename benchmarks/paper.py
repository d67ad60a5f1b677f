"""What the two sequence experiments of the paper share: methods, comparison, curves, coverage."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from paper_tables import ABLATED_C, BONUS, CALIBRATED, SMALL_ALPHA, promised, report

from braidkit import BootstrapReward, ConservativeDiffusionFinetuner, GPBonusReward, SimplexDiffusion
from braidkit.baselines import DDOM, BestOfN, ClassifierGuidance, RewardAscent, StandardFinetuner
from braidkit.datasets import OfflineSplit, fetch_utr, offline_split
from braidkit.evaluation import BudgetedSelection, CalibrationReport, Comparison, compare
from braidkit.finetuning.designer import Designer
from braidkit.oracles import EnformerOracle, Optimus5Prime
from braidkit.persistence import digest
from braidkit.spaces import infer_space

ALPHA = 0.1
MAX_CURVES = 3  # seeds whose whole course is followed
N_HELD_OUT = 4000  # offline rows that judges are compared with
# With no more rows than this c is varied more, and runs followed: where the reward is weak it matters most.
ABLATED_ROWS = 2500


@dataclass(frozen=True)
class Size:
    """How much of everything a run takes.

    Attributes
    ----------
    oracle : str
        Size of the Enformer-style oracle, trained on `oracle_rows` rows of D_ora.
    n_offline : tuple of int
        Regimes: offline measurements that methods learn from; 0 is all.
    max_iter, batch_size : int
        Of fine-tuning.
    """

    oracle: str
    oracle_rows: int
    oracle_iter: int | str
    pretraining_iter: int | str
    network: str
    n_offline: tuple[int, ...]
    max_iter: int
    batch_size: int
    n_designs: int
    seeds: int


SIZES = {
    "small": Size("cpu", 2000, 60, 60, "small", (500,), 4, 8, 32, 2),
    "cpu": Size("cpu", 30_000, "auto", "auto", "small", (2000, 500, 20_000, 5000, 0), 80, 32, 500, 3),
    "paper": Size("paper", 10**9, "auto", 20_000, "paper", (0,), 2000, 128, 3000, 5),
}


def methods(size: Size, n_rows: int) -> dict[str, Designer]:
    """Figure 2's methods with best-of-n and ascent, and the ablation over c and alpha."""
    # Evaluations are so few updates apart that a plateau says nothing: runs go to their end.
    tuning = {"max_iter": size.max_iter, "batch_size": size.batch_size, "n_iter_no_change": 10**6}
    tuning["learning_rate"] = 3e-3
    rewards: dict[str, Any] = {
        BONUS: GPBonusReward(c=0.1, lam=1.0),
        CALIBRATED: GPBonusReward(c="calibrated", lam=1.0),
        "BRAID-Boot": BootstrapReward(),
    }
    small = f"alpha = {SMALL_ALPHA}"
    rewards |= {f"{name}, {small}": reward for name, reward in rewards.items()}
    if n_rows <= ABLATED_ROWS:
        rewards |= {f"{BONUS}, c = {c:g}, {small}": GPBonusReward(c=c, lam=1.0) for c in ABLATED_C}
    tuned: dict[str, Designer] = {
        name: ConservativeDiffusionFinetuner(alpha=SMALL_ALPHA if small in name else ALPHA, reward=reward, **tuning)
        for name, reward in rewards.items()
    }
    return {
        "STRL": StandardFinetuner(alpha=ALPHA, **tuning),
        f"STRL, {small}": StandardFinetuner(alpha=SMALL_ALPHA, **tuning),
        **tuned,
        "DDOM": DDOM(conditioning="class", max_iter=size.pretraining_iter),
        "Guidance": ClassifierGuidance(),
        "best of n": BestOfN(n_candidates=8),
        "ascent": RewardAscent(),
    }


def train_oracle(split: OfflineSplit, size: Size, path: Path) -> EnformerOracle:
    """The Enformer-style oracle of D_ora, once."""
    if path.exists():
        return EnformerOracle.load(path)
    rows = np.random.default_rng(0).permutation(len(split.y_oracle))[: size.oracle_rows]
    oracle = EnformerOracle(size.oracle, max_iter=size.oracle_iter, random_state=0)
    oracle.fit(np.asarray(split.X_oracle)[rows], split.y_oracle[rows])
    oracle.save(path)
    print(f"oracle: validation R2 {oracle.validation_r2_:.3f} on {len(rows):,} rows", flush=True)
    return oracle


def regime(split: OfflineSplit, n: int, seed: int) -> OfflineSplit:
    """The split with n of its offline measurements, drawn at random for each seed; 0 keeps all."""
    if n == 0 or n >= len(split.y_offline):
        return split
    rows = np.sort(np.random.default_rng([n, seed]).permutation(len(split.y_offline))[:n])
    return dataclasses.replace(
        split,
        X_offline=np.asarray(split.X_offline)[rows],
        y_offline=split.y_offline[rows],
        offline_indices=split.offline_indices[rows],
    )


def measured_utrs(data_home: Path) -> tuple[OfflineSplit, Optimus5Prime]:
    """The split of the 280,000 measured 5'UTRs, and the model that judges what others design of them."""
    X, y = fetch_utr(data_home, return_X_y=True, download_if_missing=False)
    return offline_split(X, y, random_state=0), Optimus5Prime.from_npz(data_home / "optimus5p_mrl.npz")


class Chains:
    """The shared pretrained model of a seed, trained on sequences alone."""

    def __init__(self, X: Any, network: str, max_iter: int | str, scheme: str = "bridge") -> None:
        self.X = X
        self.scheme = scheme
        self.network = network
        self.max_iter = max_iter

    def __call__(self, seed: int) -> SimplexDiffusion:
        model = SimplexDiffusion(infer_space(list(self.X[:100])), network=self.network, scheme=self.scheme)
        model.fit(self.X, max_iter=self.max_iter, random_state=seed)
        return model


def curve(
    name: str, kept_at: float, split: OfflineSplit, size: Size, chain: Any, oracle: Any, seed: int, path: Path
) -> dict[str, Any]:
    """When a run of a method was best by the foreign oracle, what was kept without it, and what that lost.

    The run is that of the comparison over again, with the same weights at each update: `kept_at` is what that one kept.
    """
    estimator = methods(size, len(split.y_offline))[name].set_params(pretrained=chain, random_state=seed)
    file = path / f"curve-{digest([estimator, split.y_offline])}.json"
    if not file.exists():
        estimator.set_params(selection=BudgetedSelection(oracle, n_queries=128, n_rounds=21))
        file.write_text(json.dumps(estimator.fit(split.X_offline, split.y_offline).history_))
    history = {key: np.array(values) for key, values in json.loads(file.read_text()).items()}
    truth, at = history["oracle"], history["iteration"]
    best, favourite, kept = int(truth.argmax()), int(history["judge"].argmax()), int(np.flatnonzero(at == kept_at)[0])
    return {
        "method": name,
        "seed": seed,
        "best at": at[best],
        "judge likes best": at[favourite],
        "favourite": truth[favourite],
        "kept at": at[kept],
        "start": truth[0],
        "best": truth[best],
        "kept": truth[kept],
        "last": truth[-1],
        "lost": truth[best] - truth[kept],
    }


def coverage(
    part: OfflineSplit, split: OfflineSplit, designs: dict[str, Any], oracle: Any, seed: int, path: Path
) -> pd.DataFrame:
    """Coverage of rewards in distribution, in the backtest and on designs, by the foreign oracle."""
    file = path / f"coverage-{digest([part.y_offline, designs])}.csv"
    if file.exists():
        return pd.read_csv(file)
    # Rows like the offline data: unseen, and below the same cut.
    below = np.flatnonzero(split.y_oracle < split.cut)
    # At random: the table is sorted by reads, and its last rows are the noisiest.
    below = np.random.default_rng(seed).permutation(below)[:5000]
    X, y = np.asarray(split.X_oracle)[below], split.y_oracle[below]
    hard = f", alpha = {SMALL_ALPHA}" if f"{BONUS}, alpha = {SMALL_ALPHA}" in designs else ""
    arms = {BONUS + hard: 0.1, f"{BONUS}, c = 1{hard}": 1.0, CALIBRATED + hard: "calibrated"}
    tables = []
    for name in arms.keys() & designs.keys():
        reward = GPBonusReward(c=arms[name], lam=1.0, random_state=seed).fit(part.X_offline, part.y_offline)
        held = CalibrationReport.from_reward(reward, X, y, backtest=False).coverage
        # The oracle knows the rows of X, and may not speak of them; of the offline data it knows none.
        beyond = CalibrationReport.from_reward(
            reward, part.X_offline, part.y_offline, designs=designs[name], oracle=oracle
        ).coverage
        table = pd.concat([held, beyond[beyond["rows"] != "held out"]])
        tables.append(table[table["group"] == "all"].assign(c=str(arms[name]), c_value=reward.c_, seed=seed))
    columns = ["c", "c_value", "seed", "rows", "n", "one_sided", "two_sided", "penalty", "optimism"]
    table = pd.concat(tables).sort_values("c")[columns]
    table.to_csv(file, index=False)
    return table


def run(
    name: str,
    split: OfflineSplit,
    size: Size,
    given: argparse.Namespace,
    foreign: dict[str, Any],
    *,
    pretraining: Any = None,
) -> None:
    """All stages of one experiment, regime by regime, each kept and not done again; `given` is of `arguments`."""
    out, n_jobs, seeds = given.out / given.scheme, given.n_jobs, range(given.first_seed, given.first_seed + size.seeds)
    own = train_oracle(split, size, given.out / "oracle")
    judges = {"own oracle": own} | foreign
    watch = next(iter(foreign.values()), own)
    rows = np.random.default_rng(0).permutation(len(split.y_offline))[:N_HELD_OUT]
    for judge, model in judges.items():
        r = np.corrcoef(model.predict(np.asarray(split.X_offline)[rows]), split.y_offline[rows])[0, 1]
        print(f"{judge}: correlation {r:.2f} with offline measurements", flush=True)
    sequences = np.asarray(split.X_offline if pretraining is None else pretraining)
    chains = Chains(sequences, size.network, size.pretraining_iter, given.scheme)
    natural = np.asarray(split.X_oracle)[:4000]
    for n in size.n_offline:
        path = out / f"n-{n or 'all'}"
        path.mkdir(parents=True, exist_ok=True)
        parts = {seed: regime(split, n, seed) for seed in seeds}
        n_rows = len(parts[seeds[0]].y_offline)
        comparison = joined(
            compare(
                {
                    method: estimator
                    for method, estimator in methods(size, n_rows).items()
                    if re.fullmatch(given.methods, method)
                },
                parts[seed],
                oracles=judges,
                seeds=(seed,),
                n_designs=size.n_designs,
                pretrained=chains,
                natural=natural,
                cache_dir=out / "cache",
                n_jobs=n_jobs,
                verbose=1,
            )
            for seed in seeds
        )
        comparison.results.to_csv(path / "results.csv", index=False)
        comparison.failures.to_csv(path / "failures.csv", index=False)
        comparison.designs.to_csv(path / "designs.csv", index=False)
        report(name, n_rows, comparison, list(judges), path)
        loaded = {
            seed: SimplexDiffusion.from_pretrained(next((out / "cache").glob(f"pretrained-{seed}-*"))) for seed in seeds
        }
        if n_rows <= ABLATED_ROWS:
            kept_at = promised(comparison, "iteration")
            over_optimisation = Parallel(n_jobs)(
                delayed(curve)(method, kept_at[seed, method], parts[seed], size, loaded[seed], watch, seed, path)
                for method in (f"STRL, alpha = {SMALL_ALPHA}", f"{CALIBRATED}, alpha = {SMALL_ALPHA}")
                for seed in seeds[:MAX_CURVES]
                if (seed, method) in kept_at.index
            )
            print(pd.DataFrame(over_optimisation).round(3).to_string(index=False), flush=True)
        designs = {
            seed: own.groupby("method")["design"].apply(list).to_dict()
            for seed, own in comparison.designs.groupby("seed")
        }
        covered = Parallel(n_jobs)(
            delayed(coverage)(parts[seed], split, designs[seed], watch, seed, path) for seed in seeds
        )
        table = pd.concat(covered).groupby(["c", "rows"], sort=False)
        print(table.mean(numeric_only=True).round(3).to_string())
        print(table["one_sided"].agg(["min", "max"]).round(3).to_string(), flush=True)


def joined(comparisons: Iterable[Comparison]) -> Comparison:
    """One comparison of those of single seeds."""
    parts = list(comparisons)
    tables = ([getattr(part, field.name) for part in parts] for field in dataclasses.fields(Comparison))
    return Comparison(*(pd.concat(table, ignore_index=True) for table in tables))


def arguments(description: str | None) -> tuple[argparse.Namespace, Size]:
    """Options that both experiments have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), default="cpu")
    parser.add_argument("--n-offline", type=int, nargs="+", help="regimes, 0 for all; by default those of the size")
    parser.add_argument("--seeds", type=int, help="number of them")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--methods", default=".*", help="expression that the whole names of methods match")
    parser.add_argument(
        "--scheme", choices=["bridge", "euler"], default="bridge", help="25 steps, or 50 of the paper's"
    )
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = SIZES[given.size]
    if given.n_offline:
        size = dataclasses.replace(size, n_offline=tuple(given.n_offline))
    if given.seeds:
        size = dataclasses.replace(size, seeds=given.seeds)
    given.out.mkdir(parents=True, exist_ok=True)
    return given, size
