"""Designs from small tables: `braidkit design` beside what a user would do instead, on landscapes of known truth.

    PYTHONPATH=. python benchmarks/small_tables.py --quick --data-home DATA --out results/small_tables
    PYTHONPATH=. python benchmarks/small_tables.py --rows 500 2000 5000 --seeds 5 --data-home DATA --out OUT

Every method sees the same rows: those measured, with noise, below a quantile of what could have been measured. It gives
100 designs, which are judged by the exact truth:

- ``braidkit``: the command as a user gives it, and the same with a part taken away (`VARIANTS`);
- ``best of n``: the best bounds of 1,000 draws of the prior that ``braidkit`` trained; ``prior`` is the first 100 of
  them, and ``SMC`` particles of the same prior and reward;
- a ridge regression on letters and pairs, a Gaussian process with a Hamming kernel, a forest of 200 trees and five
  small CNNs, each risen by a genetic algorithm, with and without only the neighbours that are seen in the data, and
  searched exhaustively where all designs can be listed; the same on the mean and the bound of braidkit's own reward.

Printed: each measure of the designs by landscape with its interval over seeds, differences from the best simple method
paired by seed, average ranks, and how well the rewards predict fresh rows. One JSON file a stage (landscape, rows,
seed, model or variant) lies in OUT, and is not computed again while it is there; OUT/results.csv has all figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from simple_methods import MODELS, exhaustive, genetic_algorithm
from small_landscapes import Landscape, Rows, landscapes

from braidkit.baselines import SMCSampler
from braidkit.cli import main as command
from braidkit.diffusion import DiffusionModel
from braidkit.evaluation import Comparison
from braidkit.rewards import GPBonusReward

QUICK = ["ehrlich-20-32", "crx", "gb1"]
N_DESIGNS, N_DRAWS = 100, 1000
SMC_ALPHA = 0.1
# Options of the command that take one part away.
VARIANTS: dict[str, list[str]] = {"braidkit": [], "braidkit, no penalty": ["--c", "0"]}
Designs = dict[str, Any]


def measures(landscape: Landscape, rows: Rows, X: np.ndarray, lower: np.ndarray | None, seconds: float) -> Designs:
    """What the truth says of a set of designs."""
    truth = landscape.truth(X)
    tokens = landscape.tokens(X)
    found = {
        "mean": truth.mean(),
        "top ten": np.sort(truth)[-10:].mean(),
        "best": truth.max(),
        "valid": landscape.valid(X).mean(),
        "above best measured": (truth > rows.truth.max()).mean(),
        "different": len(set(X)) / len(X),
        "diversity": (tokens[:, None] != tokens).mean(axis=2).sum() / (len(X) * (len(X) - 1)),
        "seconds": seconds,
    }
    if lower is not None:
        found["bound holds"] = (truth >= lower).mean()
    return {"measures": {name: float(value) for name, value in found.items()}, "designs": X.tolist()}


def judged(landscape: Landscape, rows: Rows, predict: Any) -> dict[str, float]:
    """How well a reward predicts fresh rows: of the table's kind, and above its quantile."""
    fresh, high = predict(rows.X_fresh), predict(rows.X_high)
    return {
        "R2": float(1 - ((fresh - rows.truth_fresh) ** 2).sum() / ((rows.truth_fresh - rows.y.mean()) ** 2).sum()),
        "rank": float(spearmanr(fresh, rows.truth_fresh).statistic),
        "rank, above the quantile": float(spearmanr(high, rows.truth_high).statistic),
        "rank, all": float(spearmanr(np.append(fresh, high), np.append(rows.truth_fresh, rows.truth_high)).statistic),
    }


def searches(landscape: Landscape, rows: Rows, score: Any, seed: int) -> dict[str, tuple[np.ndarray, float]]:
    """Designs, and seconds, of each simple search of a score of tokens."""
    n_letters, tokens = len(landscape.alphabet), landscape.tokens(rows.X)
    kinds = {
        "GA": lambda: genetic_algorithm(score, tokens, rows.y, n_letters, seed),
        "GA, seen pairs": lambda: genetic_algorithm(score, tokens, rows.y, n_letters, seed, seen_pairs=True),
    }
    if landscape.small:
        kinds["all"] = lambda: exhaustive(score, n_letters, landscape.length)
    found = {}
    for name, search in kinds.items():
        start = time.process_time()
        found[name] = (landscape.strings(search()), time.process_time() - start)
    return found


def simple_stage(landscape: Landscape, rows: Rows, model: str, seed: int) -> dict[str, Any]:
    """One simple model: how well it predicts, and what its searches find."""
    start = time.process_time()
    scale, mean = rows.y.std(), rows.y.mean()
    fitted = MODELS[model](len(landscape.alphabet), seed).fit(landscape.tokens(rows.X), (rows.y - mean) / scale)
    seconds = time.process_time() - start
    found = searches(landscape, rows, fitted.predict, seed)
    return {
        "reward": judged(landscape, rows, lambda X: fitted.predict(landscape.tokens(X)) * scale + mean),
        "methods": {
            f"{model}, {search}": measures(landscape, rows, X, None, seconds + more)
            for search, (X, more) in found.items()
        },
    }


def reward_stage(landscape: Landscape, rows: Rows, seed: int) -> dict[str, Any]:
    """The default reward alone: how well it predicts, and what simple searches of its mean and bound find."""
    start = time.process_time()
    reward = GPBonusReward(random_state=seed).fit(rows.X, rows.y)
    seconds = time.process_time() - start
    bound = reward.predict_lower(rows.X_fresh)
    check = judged(landscape, rows, reward.predict) | {"bound holds": float((rows.truth_fresh >= bound).mean())}
    methods = {}
    for name, predict in (("mean", reward.predict), ("lower", reward.predict_lower)):
        found = searches(landscape, rows, lambda tokens, predict=predict: predict(landscape.strings(tokens)), seed)
        for search, (X, more) in found.items():
            methods[f"braidkit's {name}, {search}"] = measures(
                landscape, rows, X, reward.predict_lower(X), seconds + more
            )
    return {"reward": check, "methods": methods}


def braidkit_stage(landscape: Landscape, rows: Rows, variant: str, seed: int, prior: Path) -> dict[str, Any]:
    """The command as a user gives it; the full one leaves its prior behind."""
    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder) / "table.csv", Path(folder) / "run"
        pd.DataFrame({"sequence": rows.X, "y": rows.y}).to_csv(table, index=False)
        given = ["design", str(table), "--sequence", "sequence", "--target", "y", "--n", str(N_DESIGNS), "--quiet"]
        given += ["--out", str(out), "--seed", str(seed), "--alphabet", landscape.alphabet, *VARIANTS[variant]]
        start = time.process_time()
        command(given, standalone_mode=False)
        seconds = time.process_time() - start
        designs = pd.read_csv(out / "designs.csv")
        if variant == "braidkit" and (out / "pretrained").exists():
            shutil.copytree(out / "pretrained", prior, dirs_exist_ok=True)
    X = designs["sequence"].to_numpy(dtype=object)
    return {"methods": {variant: measures(landscape, rows, X, designs["lower"].to_numpy(), seconds)}}


def prior_stage(landscape: Landscape, rows: Rows, seed: int, prior: Path) -> dict[str, Any]:
    """What the command's prior makes without fine-tuning: its draws, the best of them, and particles."""
    if not prior.exists():
        return {"methods": {}}
    start = time.process_time()
    chain = DiffusionModel.from_pretrained(prior)
    draws = np.asarray(chain.sample(N_DRAWS, random_state=seed), dtype=object)
    drawn = time.process_time() - start
    reward = GPBonusReward(random_state=seed).fit(rows.X, rows.y)
    lower = reward.predict_lower(draws)
    best = np.argsort(-lower)[:N_DESIGNS]
    ranked = time.process_time() - start
    particles = SMCSampler(chain, SMC_ALPHA, reward=reward, random_state=seed).fit(rows.X, rows.y).sample(N_DESIGNS)
    X = np.asarray(particles, dtype=object)
    moved = time.process_time() - start - ranked + drawn
    return {
        "methods": {
            "prior": measures(landscape, rows, draws[:N_DESIGNS], None, drawn),
            "best of n": measures(landscape, rows, draws[best], lower[best], ranked),
            "SMC": measures(landscape, rows, X, reward.predict_lower(X), moved),
        }
    }


def results_of(stages: dict[tuple[str, int, int, str], dict[str, Any]]) -> pd.DataFrame:
    """One row a landscape, number of rows, seed, method and metric, as `Comparison` takes them."""
    records = [
        (landscape, n, seed, method, metric, value)
        for (landscape, n, seed, _), stage in stages.items()
        for method, found in stage["methods"].items()
        for metric, value in found["measures"].items()
    ]
    results = pd.DataFrame(records, columns=["landscape", "rows", "seed", "method", "metric", "value"])
    return results.assign(source="truth")


def rewards_of(stages: dict[tuple[str, int, int, str], dict[str, Any]]) -> pd.DataFrame:
    """Means over the seeds of how the rewards predict fresh rows."""
    records = [
        {"landscape": landscape, "rows": n, "reward": name} | stage["reward"]
        for (landscape, n, _, name), stage in stages.items()
        if "reward" in stage
    ]
    return pd.DataFrame(records).groupby(["landscape", "rows", "reward"], sort=False).mean()


def ranks(results: pd.DataFrame) -> pd.DataFrame:
    """Average rank of each method by the mean truth of its designs, 1 being the best, over all tables that all did."""
    means = results[results["metric"] == "mean"].groupby(["landscape", "rows", "method"])["value"].mean()
    table = means.unstack("method")
    table = table.loc[:, table.notna().all()]
    return table.rank(axis=1, ascending=False).mean().sort_values().to_frame("average rank")


def overview(results: pd.DataFrame) -> pd.DataFrame:
    """One row a table: designs of braidkit, of the best search of each simple model, and the difference by seed."""
    rows = {}
    for (landscape, n), part in results.groupby(["landscape", "rows"], sort=False):
        by_seed = part[part["metric"] == "mean"].pivot(index="seed", columns="method", values="value")
        if "braidkit" not in by_seed:
            continue
        own = by_seed["braidkit"].dropna()
        by_seed = by_seed.loc[own.index]
        row = {"braidkit": f"{own.mean():.2f} ({own.min():.2f} to {own.max():.2f})"}
        part = part[part["seed"].isin(own.index)]
        averages = part.groupby(["method", "metric"])["value"].mean()
        row |= {metric: f"{averages['braidkit', metric]:.2f}" for metric in ("valid", "bound holds")}
        means = by_seed[[method for method in by_seed if is_simple(method)]].mean()
        for model in MODELS:
            of_model = means[[method for method in means.index if method.split(",")[0] == model]]
            row[model] = f"{of_model.max():.2f}" if len(of_model) else ""
        if len(means):
            best = means.idxmax()
            pairs = own - by_seed[best]
            row["less the best of these"] = f"{pairs.mean():.2f} ({pairs.min():.2f} to {pairs.max():.2f})"
            row["its valid"] = f"{averages.get((best, 'valid'), np.nan):.2f}"
        rows[f"{landscape}, {n:,} rows, {len(own)} seeds"] = row
    return pd.DataFrame(rows).T


def is_simple(method: str) -> bool:
    """Whether a method takes nothing from braidkit."""
    return method.split(",")[0] in MODELS


def show(stages: dict[tuple[str, int, int, str], dict[str, Any]]) -> None:
    """Print all tables."""
    results = results_of(stages)
    shown = [
        "mean",
        "top ten",
        "best",
        "valid",
        "above best measured",
        "different",
        "diversity",
        "bound holds",
        "seconds",
    ]
    for (landscape, n), part in results.groupby(["landscape", "rows"], sort=False):
        comparison = Comparison(part, pd.DataFrame(), pd.DataFrame())
        summary = comparison.summary()
        table = summary["mean"].unstack("metric").droplevel("source")
        table = table[[name for name in shown if name in table]].sort_values("mean", ascending=False)
        spread = summary.xs("mean", level="metric").droplevel("source")
        table.insert(1, "interval", [f"{spread['low'][m]:.3f} to {spread['high'][m]:.3f}" for m in table.index])
        seeds = part["seed"].nunique()
        print(f"\n## {landscape}, {n} rows, {seeds} seed{'s' * (seeds > 1)}\n")
        print(table.round(3).to_string())
        simple = [method for method in table.index if is_simple(method)]
        if simple:
            paired = comparison.differences(simple[0]).xs("mean", level="metric").droplevel("source")
            mine = paired[[method.startswith(("braidkit", "best of n", "SMC")) for method in paired.index]]
            print(f"\nmean, less that of {simple[0]}, paired by seed\n{mine.round(3).to_string()}")
    print("\n## overview: true mean of 100 designs, mean over seeds (lowest to highest)\n")
    print(overview(results).to_string())
    print(f"\n## ranks\n\n{ranks(results).round(2).to_string()}")
    if any("reward" in stage for stage in stages.values()):
        print(f"\n## rewards on fresh rows\n\n{rewards_of(stages).round(3).to_string()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/small_tables"))
    parser.add_argument("--quick", action="store_true", help=f"500 rows of {', '.join(QUICK)}, without variants")
    parser.add_argument("--landscapes", nargs="+")
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--without", nargs="+", default=[], help="stages to leave out, such as prior")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    known = landscapes(given.data_home)
    names = given.landscapes or (QUICK if given.quick else list(known))
    variants = ["braidkit"] if given.quick else list(VARIANTS)

    stages = {}
    stages_of = [name for name in [*MODELS, "braidkit's reward", *variants, "prior"] if name not in given.without]
    for name in names:
        landscape = known[name]()
        for n in [500] if given.quick else given.rows:
            for seed in range(given.seeds):
                rows, prior = None, given.out / f"{name}-{n}-{seed}-prior"
                for stage in stages_of:
                    file = given.out / f"{name}-{n}-{seed}-{stage.replace(', ', '-').replace(' ', '_')}.json"
                    if not file.exists():
                        rows = rows or landscape.rows(n, seed)
                        if stage in MODELS:
                            result = simple_stage(landscape, rows, stage, seed)
                        elif stage == "braidkit's reward":
                            result = reward_stage(landscape, rows, seed)
                        elif stage == "prior":
                            result = prior_stage(landscape, rows, seed, prior)
                        else:
                            result = braidkit_stage(landscape, rows, stage, seed, prior)
                        file.write_text(json.dumps(result))
                        best = {k: round(v["measures"]["mean"], 3) for k, v in result["methods"].items()}
                        print(f"{name}, {n} rows, seed {seed}, {stage}: {best}", flush=True)
                    stages[name, n, seed, stage] = json.loads(file.read_text())
    results_of(stages).to_csv(given.out / "results.csv", index=False, float_format="%.5g")
    pd.options.display.width = 200
    show(stages)


if __name__ == "__main__":
    main()
