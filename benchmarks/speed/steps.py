"""Quality of sampled 5'UTRs, and seconds, against the number of steps of the simplex chain.

    PYTHONPATH=. python benchmarks/speed/steps.py --data-home DATA --steps 100 50 25 16 10

Both schemes of steps. One network, trained on the sequences below the 60 % quantile, serves all. Distances to held-out
sequences: Jensen-Shannon divergence of 3-mers and 5-mers (bits), Kolmogorov-Smirnov of the activity that Optimus
5-Prime predicts. "held out" compares them with as many others, what a perfect sampler would show. "letters" is an exact
test: with the exact network of independent letters, the largest error of a letter's frequency over four distributions,
in 400,000 draws each.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from harness import options, report, seconds
from scipy.stats import ks_2samp

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.datasets import fetch_utr, offline_split
from braidkit.evaluation.metrics import kmer_jensen_shannon
from braidkit.oracles import Optimus5Prime
from tests.worlds import IndependentLetters

LETTERS = ([0.7, 0.2, 0.09, 0.01], [0.01, 0.09, 0.2, 0.7], [0.25, 0.25, 0.25, 0.25], [0.1, 0.6, 0.1, 0.2])


def exact(scheme: str, steps: int) -> dict[str, object]:
    """The largest error of the frequencies of independent letters."""
    errors = []
    for probabilities in map(torch.tensor, LETTERS):
        chain = SimplexDiffusion(SequenceSpace("DNA", 100), n_steps=steps, scheme=scheme)
        chain.network, chain.kind = IndependentLetters(probabilities), "tokens"
        letters = torch.from_numpy(np.asarray(chain.freeze().sample(4000, random_state=0))).flatten()
        errors.append((letters.bincount(minlength=4) / len(letters) - probabilities).abs().max())
    return {"letters": float(max(errors))}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 50, 25, 16, 10])
    parser.add_argument("--designs", type=int, default=4000)
    arguments = parser.parse_args()
    del arguments.length, arguments.batch_size, arguments.repeats
    torch.set_num_threads(arguments.threads)
    X, y = fetch_utr(arguments.data_home, return_X_y=True, download_if_missing=False)
    X = np.random.default_rng(0).permutation(np.asarray(offline_split(X, y, random_state=0).X_offline))
    n = arguments.designs
    held_out, others, training = X[:n].tolist(), X[n : 2 * n].tolist(), X[2 * n :]
    judge = Optimus5Prime.from_npz(arguments.data_home / "optimus5p_mrl.npz")
    activity = judge.predict(held_out)

    def distances(name: str, designs: list[str]) -> dict[str, object]:
        return {
            "designs": name,
            "3-mer JS": kmer_jensen_shannon(designs, held_out, k=3),
            "5-mer JS": kmer_jensen_shannon(designs, held_out, k=5),
            "activity KS": float(ks_2samp(judge.predict(designs), activity).statistic),
        }

    trained = SimplexDiffusion(SequenceSpace("DNA", 50), n_steps=50, scheme="euler", network=arguments.network)
    trained.fit(training, random_state=0)
    rows = [distances("held out", others)]
    for scheme, steps in itertools.product(("euler", "bridge"), arguments.steps):
        chain = trained.with_steps(steps, scheme)
        designs: list[str] = []
        took = seconds(lambda chain=chain, designs=designs: designs.extend(chain.sample(n, random_state=0)))
        rows.append(distances(f"{scheme}, {steps} steps", designs) | exact(scheme, steps) | {"seconds": took})
    report(arguments, rows)


if __name__ == "__main__":
    main()
