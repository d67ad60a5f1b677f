"""What a Markov law knows of sequences: nats of held-out rows, and the share of its draws that are valid.

    python benchmarks/markov_prior.py --data-home DATA --out results/markov_prior.json

Held-out nats a letter of independent letters, of the Markov law, and of the network of a MaskedDiffusion without it
(its evidence bound), trained on 100, 500 and 2,000 rows of generated and measured 5'UTRs and of GB1. Then the share
of draws that are feasible for an Ehrlich function of 20 letters, from 100 to 2,000 feasible rows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from braidkit.datasets import make_ehrlich, make_utr
from braidkit.diffusion import MarkovLaw, MaskedDiffusion
from braidkit.oracles import EhrlichLandscape, UTRLandscape
from braidkit.spaces import infer_space

N_TEST = 2000


def tables(home: Path) -> dict[str, np.ndarray]:
    """Sequences by the name of the table, in random order."""
    utr, protein = pd.read_csv(home / "utr_mrl.csv.gz"), pd.read_csv(home / "gb1_4site.csv.gz")
    found = {
        "generated 5'UTR": make_utr(6000, random_state=0)[0],
        "5'UTR": utr["sequence"].to_numpy(),
        "GB1": protein["variant"].to_numpy(),
    }
    return {name: np.random.RandomState(0).permutation(X) for name, X in found.items()}


def draws(law: MarkovLaw, n: int = 2000) -> torch.Tensor:
    """Tokens of n sequences."""
    return law.sample(torch.rand(n, law.length, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    results = []
    for name, X in tables(arguments.data_home).items():
        space = infer_space(X[:1000])
        x = space.encode(X[-N_TEST:])
        for n in (100, 500, 2000):
            start = time.process_time()
            law, held_out = MarkovLaw.fit(space.encode(X[:n]).argmax(dim=2), space.n_letters)
            seconds = time.process_time() - start
            log_prob = law.log_prob(x.argmax(dim=2)) / space.length
            independent, _ = MarkovLaw.fit(space.encode(X[:n]).argmax(dim=2), space.n_letters, max_order=0)
            start = time.process_time()
            network = MaskedDiffusion(space, prior=None).fit(X[:n], random_state=0)
            network_seconds = time.process_time() - start
            with torch.no_grad():
                bound = float(network._loss(x, torch.Generator().manual_seed(0)))
            row = {
                "table": name,
                "n": n,
                "order": law.order,
                "independent": -float((independent.log_prob(x.argmax(dim=2)) / space.length).mean()),
                "markov": -float(log_prob.mean()),
                "markov, by cross-validation": min(held_out.values()),
                "masked network": bound,
                "seconds": seconds,
                "network seconds": network_seconds,
            }
            if name == "generated 5'UTR":
                landscape = UTRLandscape()
                row["valid"] = float(landscape.is_valid(space.decode(torch.eye(4)[draws(law)])).mean())
                row["valid, network"] = float(landscape.is_valid(network.sample(1000, random_state=0)).mean())
            results.append(row)
            print(row, flush=True)
    landscape = EhrlichLandscape()
    X, _ = make_ehrlich(2000 + N_TEST, landscape=landscape, random_state=0)
    x = landscape.space.encode(X).argmax(dim=2)
    for n in (100, 250, 500, 2000):
        law, _ = MarkovLaw.fit(x[:n], landscape.space.n_letters)
        feasible = landscape.is_valid(landscape.space.decode(torch.eye(20)[draws(law)])).mean()
        impossible = law.log_prob(x[-N_TEST:]).isinf().double().mean()
        results.append({"table": "Ehrlich", "n": n, "valid": float(feasible), "impossible rows": float(impossible)})
        print(results[-1], flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
