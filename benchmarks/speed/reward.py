"""Time and memory of the Gaussian process's posterior, and of lower bounds, against the products that they need.

    PYTHONPATH=. python benchmarks/speed/reward.py

Posterior: float32 features come in chunks, as a network gives them; each chunk is timed twice, in turn: the bare
float64 product Phi^T Phi, and the whole update of the posterior (conversion, Phi^T Phi, Phi^T y). The slope is that of
log time against log rows. Queries: the lower bound of points as long as a 5'UTR, against the feature network's forward
pass.
"""

from __future__ import annotations

from statistics import median

import numpy as np
import torch
from harness import in_turn, options, peak_gib, report, seconds

from braidkit import GPBonusReward
from braidkit.rewards._linear_posterior import LinearPosterior
from braidkit.rewards.features import PREDICT_BATCH


def posterior(n_rows: int, n_features: int, chunk: int) -> dict[str, object]:
    """Seconds of the bare products, of the updates and of the solution, and the peak of memory."""
    generator = torch.Generator().manual_seed(0)
    fitted = LinearPosterior(n_features, lam=1.0)
    gram = torch.zeros_like(fitted.gram)
    bare = update = 0.0
    for start in range(0, n_rows, chunk):
        phi = torch.randn(min(chunk, n_rows - start), n_features, generator=generator)
        y, wide = phi[:, 0].clone(), phi.double()
        bare += seconds(lambda wide=wide: gram.add_(wide.T @ wide))
        update += seconds(lambda phi=phi, y=y: fitted.update(phi, y))
    solve = seconds(fitted.solve)
    row = {"piece": "posterior", "rows": n_rows, "seconds": update + solve, "bare": bare}
    return row | {"ratio to bare": (update + solve) / bare, "peak, GiB": peak_gib()}


def queries(n: int, n_rows: int, length: int, repeats: int) -> dict[str, object]:
    """Seconds of the bounds of n points, and of the feature network's passes alone."""
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(n_rows, length))]
    reward = GPBonusReward(lam=1.0, max_iter=1, random_state=0).fit(X, rng.normal(size=n_rows))
    points = torch.nn.functional.one_hot(torch.randint(4, (n, length)), 4).float()

    def bounds() -> None:
        for part in points.split(PREDICT_BATCH):
            reward.lower(part)

    def features() -> None:
        for part in points.split(PREDICT_BATCH):
            reward.process_.features(part)

    with torch.no_grad():
        times = in_turn({"bounds": bounds, "features": features}, repeats)
    ratio = median(own / bare for own, bare in zip(times["bounds"], times["features"], strict=True))
    row = {"piece": "lower bounds", "rows": n, "seconds": median(times["bounds"]), "bare": median(times["features"])}
    return row | {"ratio to bare": ratio, "peak, GiB": peak_gib()}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 84_000, 700_000])
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=8192)
    parser.add_argument("--queries", type=int, default=100_000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    posterior(arguments.chunk, arguments.features, arguments.chunk)
    rows = [posterior(n, arguments.features, arguments.chunk) for n in arguments.rows]
    slope = np.polyfit(np.log(arguments.rows), np.log([row["seconds"] for row in rows]), 1)[0]
    rows.append(queries(arguments.queries, 20_000, arguments.length, arguments.repeats))
    report(arguments, rows)
    print(f"seconds of the posterior grow as rows^{slope:.2f}")


if __name__ == "__main__":
    main()
