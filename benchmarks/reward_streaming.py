"""Time and memory of the linear Gaussian-process posterior at the size of the paper's enhancer data.

python benchmarks/reward_streaming.py [--rows 700000] [--features 256] [--queries 10000]

Float32 features come in chunks from a generator, as a network gives them. Each chunk is timed twice, in turn: the bare
float64 product Phi^T Phi, and the whole `LinearPosterior.update` (conversion to float64, Phi^T Phi, Phi^T y).
"""

import argparse
import json
import resource
import time

import torch

from braidkit.rewards._linear_posterior import LinearPosterior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=700_000)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=8192)
    parser.add_argument("--queries", type=int, default=10_000)
    options = parser.parse_args()

    memory_before = peak_gib()
    generator = torch.Generator().manual_seed(0)
    posterior = LinearPosterior(options.features, lam=1.0)
    bare_gram = torch.zeros_like(posterior.gram)
    bare = update = 0.0
    for start in range(0, options.rows, options.chunk):
        n = min(options.chunk, options.rows - start)
        phi = torch.randn(n, options.features, generator=generator)
        y = phi[:, 0] + torch.randn(n, generator=generator)
        wide = phi.double()
        bare += seconds(lambda wide=wide: bare_gram.add_(wide.T @ wide))
        update += seconds(lambda phi=phi, y=y: posterior.update(phi, y))
    solve = seconds(posterior.solve)

    queries = torch.randn(options.queries, options.features, generator=generator).double()
    bare_query = seconds(lambda: queries @ bare_gram)
    query = seconds(lambda: (posterior.mean(queries), posterior.variance(queries)))
    print(
        json.dumps(
            {
                "rows": options.rows,
                "features": options.features,
                "threads": torch.get_num_threads(),
                "bare product, s": round(bare, 2),
                "update, s": round(update, 2),
                "update / bare": round(update / bare, 3),
                "solve, s": round(solve, 3),
                "bare query product, s": round(bare_query, 3),
                "mean and variance of the queries, s": round(query, 3),
                "peak memory, GiB": round(peak_gib(), 2),
                "of it before the first row": round(memory_before, 2),
            },
            indent=2,
        )
    )


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_gib() -> float:
    """Largest resident memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
