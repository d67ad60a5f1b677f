"""Antibodies from some hundred measured variants, with and without a language model of antibodies.

    PYTHONPATH=. python benchmarks/antibodies.py --data-home DATA --model antiberty/ --out results/antibodies

Two tables of heavy chains, whose framework is held by a template: trastuzumab with other CDR3 (SPR, 398 binders, 13
positions), and 4-4-20 with other CDR1 and CDR3 (Tite-Seq, 800 of 2,804 variants, 20 positions). In that order:

1. *rewards* on letters (the default) and on hidden states of the language model, by random splits and by a split at the
   80 % quantile of affinity: learned from below, judged above;
2. *designs* learned from the rows below the quantile, with three priors: uniform letters, the Markov law of these rows,
   and the language model. They are judged by a reward of all rows, which no method sees, and by the language model's
   pseudo-perplexity of the free letters, beside measured binders and binders with letters replaced at random.

One JSON file a stage lies in OUT, and is not computed again while it is there. The language model is in bfloat16: its
log-probabilities differ by 0.006 on average from those in float32.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from antibody_tables import (
    RESIDUES,
    TABLES,
    Antibodies,
    Values,
    among_measured,
    pseudo_perplexity,
    quality,
    replaced,
    split,
)

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, MaskedDiffusion
from braidkit.rewards import MaskedLMFeatures

ALPHA = 0.05
N_DRAWS, BEST_OF = 128, 4
N_JUDGED = 16  # designs of a stage whose pseudo-perplexity is computed
REWARDS = ("letters", "language model, mean", "language model, positions", "both, averaged")
PRIORS = ("uniform", "Markov", "language model")


def language_model(data: Antibodies, model: Path, **settings: Any) -> Any:
    return MaskedDiffusion.from_masked_lm(model, data.space, dtype="bfloat16", **settings)


def rewards_stage(data: Antibodies, model: Path, seeds: range) -> list[dict[str, Any]]:
    """How well rewards predict, by split and seed."""
    chain, records = language_model(data, model), []
    features = {name: MaskedLMFeatures(chain, pooling=name) for name in ("mean", "positions")}
    for kind in ("random", "quantile"):
        for seed in seeds:
            training, judged = split(data, kind, seed)
            predicted: dict[str, Values] = {}
            for name in REWARDS[:3]:
                start = time.process_time()
                layer = None if name == "letters" else features[name.split(", ")[1]]
                reward = GPBonusReward(features=layer, space=data.space, random_state=seed)
                reward.fit(data.X[training], data.y[training])
                predicted[name] = reward.predict(data.X[judged])
                seconds = time.process_time() - start
                records.append({"split": kind, "seed": seed, "reward": name, "seconds": seconds})
                records[-1] |= quality(predicted[name], data.y[judged])
            both = (predicted["letters"] + predicted["language model, positions"]) / 2
            records.append({"split": kind, "seed": seed, "reward": REWARDS[3]} | quality(both, data.y[judged]))
    return records


def prior_chain(data: Antibodies, prior: str, model: Path, seed: int) -> Any:
    """A chain with one of the three priors."""
    if prior == "language model":
        return language_model(data, model)
    X = data.below[0]
    if prior == "uniform":
        letters = np.random.default_rng(seed).choice(list(RESIDUES), size=(5000, len(data.free)))
        X = np.repeat(X[:1], len(letters))
        rows = np.array([list(row) for row in X])
        rows[:, data.free] = letters
        X = np.array(["".join(row) for row in rows], dtype=object)
    return MaskedDiffusion(data.space).fit(list(X), random_state=seed)


def draws_stage(data: Antibodies, prior: str, model: Path) -> dict[str, Any]:
    """Draws of a prior, for all seeds, and how many tokens a second of CPU time it reads."""
    chain = prior_chain(data, prior, model, 0)
    start = time.process_time()
    found: dict[str, Any] = {"draws": chain.sample(N_DRAWS, random_state=0)}
    found["seconds"] = time.process_time() - start
    if prior == "language model":
        x = data.space.encode(data.X[:16])
        for position, row in zip(data.free * 2, x, strict=False):  # all rows different
            row[position] = 0
        chain.letter_log_probs(x)
        start = time.process_time()
        for _ in range(3):
            chain.letter_log_probs(x)
        found["tokens a second"] = 3 * len(x) * (x.shape[1] + 2) / (time.process_time() - start)
        binders = data.binders[:32].tolist()
        found["nats a letter"] = {share: chain.cross_entropy(binders, share) for share in (0.15, 0.5, 1.0)}
    return found


def best_stage(data: Antibodies, draws: list[str], seed: int) -> dict[str, Any]:
    """Of each four draws of a prior the one with the highest bound."""
    reward = GPBonusReward(space=data.space, random_state=seed).fit(*data.below)
    best = reward.predict_lower(draws).reshape(-1, BEST_OF).argmax(axis=1)
    designs = [draws[BEST_OF * i + j] for i, j in enumerate(best)]
    return {"designs": designs, "kl": math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF}


def finetuned_stage(data: Antibodies, prior: str, model: Path, seed: int) -> dict[str, Any]:
    """Designs of a chain of letters that was fine-tuned by tempering."""
    start = time.process_time()
    chain = prior_chain(data, prior, model, seed)
    finetuner = ConservativeDiffusionFinetuner(chain, ALPHA, solver="tempering", random_state=seed).fit(*data.below)
    kl = finetuner.history_["kl"][finetuner.history_["iteration"].index(finetuner.best_iter_)]
    return {"designs": finetuner.sample(N_DRAWS, seed), "kl": kl, "seconds": time.process_time() - start}


def adapted_stage(data: Antibodies, model: Path, seed: int, updates: int) -> dict[str, Any]:
    """Designs of the language model: its adapter trained on the rows' sequences, then by trajectory balance."""
    start = time.process_time()
    chain, binders = language_model(data, model, n_steps=5), data.binders[:32].tolist()
    settings = {"max_iter": 15, "batch_size": 16, "learning_rate": 5e-3}
    adapted = copy.deepcopy(chain).fit(list(data.below[0]), random_state=seed, **settings)
    found = {"nats a letter": {share: adapted.cross_entropy(binders, share) for share in (0.15, 0.5, 1.0)}}
    found |= {"draws": adapted.sample(32, seed), "adapting": time.process_time() - start}
    tuning = {"max_iter": updates, "batch_size": 8, "learning_rate": 1e-2, "solver": "trajectory_balance"}
    finetuner = ConservativeDiffusionFinetuner(adapted, ALPHA, random_state=seed, **tuning).fit(*data.below)
    kl = finetuner.history_["kl"][finetuner.history_["iteration"].index(finetuner.best_iter_)]
    found |= {"history": finetuner.history_, "kept at": finetuner.best_iter_}
    return found | {"designs": finetuner.sample(32, seed), "kl": kl, "seconds": time.process_time() - start}


def judge_stage(data: Antibodies, X: list[str]) -> dict[str, float]:
    """Affinities by a reward of all rows."""
    judge = GPBonusReward(space=data.space, random_state=12345).fit(data.all_X, data.all_y)
    return dict(zip(X, judge.predict(X).tolist(), strict=True))


def kept(file: Path, compute: Callable[[], Any]) -> Any:
    """The result of a stage, from its file if it is there."""
    if not file.exists():
        start = time.perf_counter()
        result = compute()
        file.write_text(json.dumps(result, default=float))
        print(f"{file.stem}: {time.perf_counter() - start:.0f} s", flush=True)
    return json.loads(file.read_text())


def known_values(file: Path, wanted: list[str], compute: Callable[[list[str]], dict[str, float]]) -> dict[str, float]:
    """Values of sequences; those that the file does not have are computed."""
    known = json.loads(file.read_text()) if file.exists() else {}
    missing = sorted(set(wanted) - known.keys())
    if missing:
        known |= compute(missing)
        file.write_text(json.dumps(known))
        print(f"{file.stem}: {len(missing)} new", flush=True)
    return known


def groups(data: Antibodies, out: Path, name: str) -> dict[tuple[str, int], dict[str, Any]]:
    """All sets of sequences to be judged, by kind and seed, of the stages that are done."""
    low_X, low_y = data.below
    order = np.argsort(-low_y)
    sets: dict[tuple[str, int], dict[str, Any]] = {
        ("rows below the quantile", 0): {"designs": low_X.tolist()},
        ("their best tenth", 0): {"designs": low_X[order[: len(order) // 10]].tolist()},
        ("rows above the quantile", 0): {"designs": data.binders.tolist()},
        ("these, 3 letters replaced", 0): {"designs": replaced(data.binders, data.free, 64, 0)},
    }
    for file in sorted(out.glob(f"{name}-designs-*.json")):
        kind, _, seed = file.stem.removeprefix(f"{name}-designs-").rpartition("-")
        stage = json.loads(file.read_text())
        if "draws" in stage:
            sets[kind.replace("and fine-tuned", "drawn"), int(seed)] = {"designs": stage["draws"], "kl": 0.0}
        if "designs" in stage:
            sets[kind, int(seed)] = stage
    return sets


def results(
    sets: dict[tuple[str, int], dict[str, Any]], data: Antibodies, judged: Any, perplexity: Any
) -> pd.DataFrame:
    """One row a set of sequences."""
    affinity = judged([x for found in sets.values() for x in found["designs"]])
    nats = perplexity([x for found in sets.values() for x in spread(found["designs"])])
    records = []
    for (kind, seed), found in sets.items():
        designs = found["designs"]
        record = {
            "designs": kind,
            "seed": seed,
            "affinity by the judge": np.mean([affinity[x] for x in designs]),
            "pseudo-perplexity": np.median([nats[x] for x in spread(designs)]),
            "different": len(set(designs)) / len(designs),
            "KL": found.get("kl", math.nan),
        }
        records.append(record | among_measured(designs, data.all_X, data.all_y))
    return pd.DataFrame(records)


def spread(designs: list[str]) -> list[str]:
    """`N_JUDGED` of the designs, evenly spread over the list."""
    return [designs[i] for i in np.linspace(0, len(designs) - 1, min(N_JUDGED, len(designs))).round().astype(int)]


def over_seeds(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over the seeds, with the least and the greatest where there are several."""

    def cell(values: pd.Series) -> str:
        mean = f"{values.mean():.2f}"
        several = values.notna().sum() > 1 and values.max() - values.min() > 0.005
        return "" if values.isna().all() else f"{mean} ({values.min():.2f} to {values.max():.2f})" if several else mean

    return table.drop(columns="seed").groupby(by, sort=False).agg(cell).reset_index()


def markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="directory of a masked language model of antibodies")
    parser.add_argument("--out", type=Path, default=Path("results/antibodies"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=8, help="of trajectory balance; 0 leaves it out")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--csv", type=Path, help="folder for the results of all seeds")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    seeds = range(given.seeds)
    for name in given.tables:
        stages(name, TABLES[name](given.data_home), seeds, given)
    if given.updates and "trastuzumab" in given.tables:
        data = TABLES["trastuzumab"](given.data_home)
        for seed in seeds:
            file = given.out / f"trastuzumab-designs-language model, adapted and fine-tuned-{seed}.json"
            kept(file, functools.partial(adapted_stage, data, given.model, seed, given.updates))
    for name in given.tables:
        show(name, TABLES[name](given.data_home), given)


def stages(name: str, data: Antibodies, seeds: range, given: argparse.Namespace) -> None:
    """Compute the stages of one table that are not there."""
    print(f"{name}: {len(data.y)} rows, {len(data.free)} free positions, quantile at {data.cut:.2f}", flush=True)
    kept(given.out / f"{name}-rewards.json", lambda: rewards_stage(data, given.model, seeds))
    for prior in PRIORS:
        draw = functools.partial(draws_stage, data, prior, given.model)
        draws = kept(given.out / f"{name}-draws-{prior}.json", draw)["draws"]
        kept(given.out / f"{name}-designs-{prior}, drawn-0.json", lambda draws=draws: {"designs": draws, "kl": 0.0})
        for seed in seeds:
            best = functools.partial(best_stage, data, draws, seed)
            kept(given.out / f"{name}-designs-{prior}, best of 4-{seed}.json", best)
            if prior != "language model":
                tune = functools.partial(finetuned_stage, data, prior, given.model, seed)
                kept(given.out / f"{name}-designs-{prior}, fine-tuned-{seed}.json", tune)


def show(name: str, data: Antibodies, given: argparse.Namespace) -> None:
    """Judge all designs, and print the tables of one set of antibodies."""
    rewards = json.loads((given.out / f"{name}-rewards.json").read_text())
    model = json.loads((given.out / f"{name}-draws-language model.json").read_text())
    chain = language_model(data, given.model)

    def perplexities(X: list[str]) -> dict[str, float]:
        return dict(zip(X, pseudo_perplexity(chain, X).tolist(), strict=True))

    judged = functools.partial(known_values, given.out / f"{name}-judge.json", compute=lambda X: judge_stage(data, X))
    perplexity = functools.partial(known_values, given.out / f"{name}-perplexity.json", compute=perplexities)
    table = results(groups(data, given.out, name), data, judged, perplexity)
    predictions = pd.DataFrame(rewards)
    print(f"\n## {name}\n")
    print(f"{model['tokens a second']:.0f} tokens a second; nats a letter of binders by share hidden: ", end="")
    print({share: round(nats, 2) for share, nats in model["nats a letter"].items()}, end="\n\n")
    print(markdown(over_seeds(predictions.drop(columns="seconds"), ["split", "reward"])), end="\n\n")
    print(markdown(over_seeds(table, ["designs"])), flush=True)
    if given.csv:
        predictions.round(4).to_csv(given.csv / f"antibodies-{name}-rewards.csv", index=False)
        table.round(4).to_csv(given.csv / f"antibodies-{name}-designs.csv", index=False)


if __name__ == "__main__":
    main()
