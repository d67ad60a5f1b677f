"""Antibodies from some hundred measured variants, with and without a language model of antibodies.

    PYTHONPATH=. python benchmarks/antibodies.py --data-home DATA --model antiberty/ --out results/antibodies

Two tables of heavy chains, whose framework is held by a template: trastuzumab with other CDR3 (SPR, 398 binders, 13
positions), and 4-4-20 with other CDR1 and CDR3 (Tite-Seq, 800 of 2,804 variants, 20 positions). In that order:

1. *rewards* on letters (the default) and on hidden states of the language model, by random splits and by a split at the
   80 % quantile of affinity: learned from below, judged above;
2. *designs* learned from the rows below the quantile, with three priors: uniform letters, the Markov law of these rows,
   and the language model. Chains of the first two are fine-tuned. Of the language model's tilted law particles are
   drawn, and its adapter is fine-tuned by path tempering and by trajectory balance. Designs are judged by a reward of
   all rows, which no method sees, and by the language model's pseudo-perplexity of the free letters, beside measured
   binders and binders with letters replaced at random.

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
from collections import Counter
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
from scipy.stats import t as student

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, MaskedDiffusion
from braidkit.baselines import SMCSampler
from braidkit.finetuning import sample_with_kl
from braidkit.rewards import MaskedLMFeatures

N_DRAWS, BEST_OF = 64, 4
N_DESIGNS = 128
N_STEPS = 5  # of the language model, where it is weighed by the reward on its way
N_JUDGED = 9  # sequences of a kind, over all seeds, whose pseudo-perplexity is computed
REWARDS = ("letters", "language model, mean", "language model, positions", "both, averaged")
ADAPTED = "language model, adapted"
PRIORS = ("language model", "Markov", "uniform")
# Fine-tuning of the language model's adapter by the reward, in about as many minutes each.
ADAPTER_FITS: dict[str, dict[str, Any]] = {
    "language model, path tempering": {"solver": "path_tempering", "batch_size": 64, "max_iter": 8},
    "language model, trajectory balance": {
        "solver": "trajectory_balance",
        "batch_size": 16,
        "max_iter": 12,
        "learning_rate": 5e-3,
    },
}


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
        return language_model(data, model, n_steps=data.space.n_free_positions)
    X = data.below[0]
    if prior == "uniform":
        letters = np.random.default_rng(seed).choice(list(RESIDUES), size=(5000, len(data.free)))
        X = np.repeat(X[:1], len(letters))
        rows = np.array([list(row) for row in X])
        rows[:, data.free] = letters
        X = np.array(["".join(row) for row in rows], dtype=object)
    # Random letters need no network beside their law.
    return MaskedDiffusion(data.space).fit(list(X), max_iter=10 if prior == "uniform" else "auto", random_state=seed)


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


def best_stage(data: Antibodies, draws: dict[str, list[str]], seed: int) -> dict[str, Any]:
    """By prior: of each four draws the one with the highest bound."""
    reward, found = GPBonusReward(space=data.space, random_state=seed).fit(*data.below), {}
    for prior, X in draws.items():
        best = reward.predict_lower(X).reshape(-1, BEST_OF).argmax(axis=1)
        found[prior] = [X[BEST_OF * i + j] for i, j in enumerate(best)]
    return found


def finetuned_stage(data: Antibodies, prior: str, model: Path, seed: int) -> dict[str, Any]:
    """Designs of a chain of letters that was fine-tuned by tempering."""
    start = time.process_time()
    chain = prior_chain(data, prior, model, seed)
    finetuner = ConservativeDiffusionFinetuner(chain, solver="tempering", random_state=seed).fit(*data.below)
    noise = finetuner.model_.draw_noise(N_DESIGNS, torch.Generator().manual_seed(seed))
    path = sample_with_kl(finetuner.model_, finetuner.pretrained_, noise)
    found = {"designs": data.space.decode(path.point, "strings"), "kl": float(path.kl.mean())}
    return found | {"alpha": finetuner.alpha_, "seconds": time.process_time() - start}


def adapter_stage(data: Antibodies, model: Path, seed: int, fit: str) -> dict[str, Any]:
    """Designs of the language model after its adapter was fine-tuned by the reward, in few steps of few paths."""
    chain = language_model(data, model, n_steps=N_STEPS)
    start = time.process_time()
    finetuner = ConservativeDiffusionFinetuner(chain, random_state=seed, **ADAPTER_FITS[fit]).fit(*data.below)
    seconds = time.process_time() - start
    noise = finetuner.model_.draw_noise(N_DRAWS, torch.Generator().manual_seed(seed))
    path = sample_with_kl(finetuner.model_, finetuner.pretrained_, noise)
    found = {"designs": data.space.decode(path.point, "strings"), "kl": float(path.kl.mean()), "seconds": seconds}
    return found | {"alpha": finetuner.alpha_, "updates": finetuner.n_iter_, "kept": finetuner.best_iter_}


def particles_stage(
    data: Antibodies, model: Path, seed: int, *, adapts: bool, n_steps: int = N_STEPS
) -> dict[str, Any]:
    """Particles of the law that fine-tuning aims for, from the language model in few steps, adapted first or not."""
    start = time.process_time()
    chain, found = language_model(data, model, n_steps=n_steps), {}
    if adapts:
        settings = {"max_iter": 15, "batch_size": 16, "learning_rate": 5e-3}
        chain = copy.deepcopy(chain).fit(list(data.below[0]), random_state=seed, **settings)
        binders = data.binders[:32].tolist()
        found["nats a letter"] = {share: chain.cross_entropy(binders, share) for share in (0.15, 0.5, 1.0)}
    sampler = SMCSampler(chain, "auto", n_particles=N_DRAWS, random_state=seed).fit(*data.below)
    found["designs"] = sampler.sample(N_DRAWS, seed)
    # KL(p, prior) of the tilted law is E[reward / alpha] - log C.
    with torch.no_grad():
        reward = sampler.reward_.lower(data.space.encode(found["designs"])).double()
    standardised = (float(reward.mean()) - sampler.reward_.y_mean_) / sampler.reward_.y_std_
    found |= {"kl": standardised / sampler.alpha_ - sampler.log_z_, "ess": float(sampler.ess_.min())}
    return found | {"alpha": sampler.alpha_, "seconds": time.process_time() - start}


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
    """All sets of sequences to be judged, by kind and seed."""
    low_X, low_y = data.below
    order = np.argsort(-low_y)
    sets: dict[tuple[str, int], dict[str, Any]] = {
        ("rows below the quantile", 0): {"designs": low_X.tolist()},
        ("their best tenth", 0): {"designs": low_X[order[: len(order) // 10]].tolist()},
        ("rows above the quantile", 0): {"designs": data.binders.tolist()},
        ("these, 3 letters replaced", 0): {"designs": replaced(data.binders, data.free, 64, 0)},
    }
    for prior in PRIORS:
        draws = json.loads((out / f"{name}-draws-{prior}.json").read_text())["draws"]
        sets[f"{prior}, drawn", 0] = {"designs": draws, "kl": 0.0}
    for file in sorted(out.glob(f"{name}-best-*.json")):
        for prior, designs in json.loads(file.read_text()).items():
            kl = math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF
            sets[f"{prior}, best of {BEST_OF}", seed_of(file)] = {"designs": designs, "kl": kl}
    for prior in (*PRIORS, ADAPTED, *ADAPTER_FITS):
        for file in sorted(out.glob(f"{name}-tuned-{prior}-*.json")):
            stage = json.loads(file.read_text())
            sets[f"{prior}, {'particles' if 'ess' in stage else 'fine-tuned'}", seed_of(file)] = stage
    return sets


def seed_of(file: Path) -> int:
    return int(file.stem.rsplit("-", 1)[1])


def results(
    sets: dict[tuple[str, int], dict[str, Any]], data: Antibodies, judged: Any, perplexity: Any
) -> pd.DataFrame:
    """One row a set of sequences."""
    n_seeds = Counter(kind for kind, _ in sets)
    looked_at = {key: spread(found["designs"], N_JUDGED // n_seeds[key[0]]) for key, found in sets.items()}
    affinity = judged([x for found in sets.values() for x in found["designs"]])
    values = perplexity([x for some in looked_at.values() for x in some])
    records = []
    for (kind, seed), found in sets.items():
        designs = found["designs"]
        record = {
            "designs": kind,
            "seed": seed,
            "affinity by the judge": np.mean([affinity[x] for x in designs]),
            "pseudo-perplexity": np.median([values[x] for x in looked_at[kind, seed]]),
            "different": len(set(designs)) / len(designs),
            "KL": found.get("kl", math.nan),
            "alpha": found.get("alpha", math.nan),
        }
        records.append(record | among_measured(designs, data.all_X, data.all_y))
    return pd.DataFrame(records)


def spread(designs: list[str], n: int) -> list[str]:
    """At most n of the designs, evenly spread over the list."""
    return [designs[i] for i in np.linspace(0, len(designs) - 1, min(n, len(designs))).round().astype(int)]


def over_seeds(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over the seeds, with the least and the greatest where there are several."""

    def cell(values: pd.Series) -> str:
        mean = f"{values.mean():.2f}"
        several = values.notna().sum() > 1 and values.max() - values.min() > 0.005
        return "" if values.isna().all() else f"{mean} ({values.min():.2f} to {values.max():.2f})" if several else mean

    return table.drop(columns="seed").groupby(by, sort=False).agg(cell).reset_index()


def paired(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Affinities by the judge, less those of a reference of the same seed: means, and 95 % intervals by Student's t."""
    values = table.pivot(index="seed", columns="designs", values="affinity by the judge")
    records = []
    for kind in values.columns.drop(reference):
        difference = (values[kind] - values[reference]).dropna()
        if len(difference) > 1:
            half = student.ppf(0.975, len(difference) - 1) * difference.sem()
            records.append({"designs": kind, f"less {reference}": difference.mean(), "half interval": half})
    return pd.DataFrame(records)


def markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="directory of a masked language model of antibodies")
    parser.add_argument("--out", type=Path, default=Path("results/antibodies"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--csv", type=Path, help="folder for the results of all seeds")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    seeds = range(given.seeds)
    for name in given.tables:
        data = TABLES[name](given.data_home)
        stages(name, data, seeds, given)
        for seed in seeds:
            tuned_stages(name, data, seed, given)
        show(name, data, given)


def stages(name: str, data: Antibodies, seeds: range, given: argparse.Namespace) -> None:
    """Compute the stages of one table that are not there."""
    print(f"{name}: {len(data.y)} rows, {len(data.free)} free positions, quantile at {data.cut:.2f}", flush=True)
    kept(given.out / f"{name}-rewards.json", lambda: rewards_stage(data, given.model, seeds))
    draws = {}
    for prior in PRIORS:
        draw = functools.partial(draws_stage, data, prior, given.model)
        draws[prior] = kept(given.out / f"{name}-draws-{prior}.json", draw)["draws"]
    for seed in seeds:
        kept(given.out / f"{name}-best-{seed}.json", functools.partial(best_stage, data, draws, seed))


def tuned_stages(name: str, data: Antibodies, seed: int, given: argparse.Namespace) -> None:
    """Designs of fine-tuned chains and of fine-tuned adapters, and particles of the language model's."""
    runs: dict[str, Callable[[], Any]] = {
        prior: functools.partial(finetuned_stage, data, prior, given.model, seed) for prior in PRIORS[1:]
    }
    for prior, adapts in ((PRIORS[0], False), (ADAPTED, True)):
        runs[prior] = functools.partial(particles_stage, data, given.model, seed, adapts=adapts)
    for fit in ADAPTER_FITS:
        runs[fit] = functools.partial(adapter_stage, data, given.model, seed, fit)
    for prior, run in runs.items():
        kept(given.out / f"{name}-tuned-{prior}-{seed}.json", run)


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
    print(markdown(over_seeds(table, ["designs"])), end="\n\n")
    print(markdown(paired(table, "Markov, fine-tuned").round(2)), flush=True)
    if given.csv:
        predictions.round(4).to_csv(given.csv / f"antibodies-{name}-rewards.csv", index=False)
        table.round(4).to_csv(given.csv / f"antibodies-{name}-designs.csv", index=False)


if __name__ == "__main__":
    main()
