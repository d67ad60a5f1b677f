"""How close do a trained SimplexDiffusion's sequences come to the data's law?

The data are 50-nt DNA sequences whose letter frequencies drift along the sequence, with few CpG and with a degenerate
motif planted in most. Each line compares sequences with held-out data: another half of the held-out data (the floor),
that half with the letters of each sequence shuffled, and the samples of a model.

    python benchmarks/simplex_quality.py --out simplex_quality.json
"""

from __future__ import annotations

import argparse
import json
import re
import time

import numpy as np
import torch

from braidkit.diffusion.simplex import SimplexDiffusion
from braidkit.evaluation.metrics import kmer_jensen_shannon
from braidkit.spaces import SequenceSpace

LENGTH = 50
# TGASTCA, with a wobble at both ends.
MOTIF = ["AT", "T", "G", "A", "CG", "T", "C", "A", "TC"]
MOTIF_PATTERN = re.compile("(?=" + "".join(f"[{letters}]" for letters in MOTIF) + ")")


def make_sequences(n: int, rng: np.random.Generator) -> list[str]:
    """Draw sequences: a chain with drifting composition and few CpG, the motif planted in three out of four."""
    start, end = np.array([0.35, 0.15, 0.15, 0.35]), np.array([0.15, 0.35, 0.35, 0.15])
    rows = np.empty((n, LENGTH), dtype=int)
    for i in range(LENGTH):
        p = np.tile(start + (end - start) * i / (LENGTH - 1), (n, 1))
        if i:
            p[rows[:, i - 1] == 1, 2] *= 0.15
        p /= p.sum(axis=1, keepdims=True)
        rows[:, i] = (rng.random((n, 1)) > p.cumsum(axis=1)[:, :3]).sum(axis=1)
    for row in np.flatnonzero(rng.random(n) < 0.75):
        position = int(np.clip(rng.normal(18, 6), 0, LENGTH - len(MOTIF)))
        for j, letters in enumerate(MOTIF):
            rows[row, position + j] = "ACGT".index(letters[rng.integers(len(letters))])
    return ["".join("ACGT"[letter] for letter in row) for row in rows]


def shuffle_letters(sequences: list[str], rng: np.random.Generator) -> list[str]:
    """The same letters of each sequence in random order."""
    return ["".join(rng.permutation(list(sequence))) for sequence in sequences]


def frequencies(sequences: list[str]) -> np.ndarray:
    """Letter frequencies by position, (L, 4)."""
    letters = np.array([list(sequence) for sequence in sequences])
    return np.stack([(letters == letter).mean(axis=0) for letter in "ACGT"], axis=1)


def compare(sequences: list[str], held_out: list[str]) -> dict[str, float]:
    """Distances of sequences to held-out data."""
    difference = np.abs(frequencies(sequences) - frequencies(held_out))
    return {
        "frequencies_mean_abs": float(difference.mean()),
        "frequencies_max_abs": float(difference.max()),
        "js_3mer_bits": kmer_jensen_shannon(sequences, held_out, k=3),
        "js_6mer_bits": kmer_jensen_shannon(sequences, held_out, k=6),
        "with_motif": float(np.mean([MOTIF_PATTERN.search(sequence) is not None for sequence in sequences])),
        "cpg_per_sequence": float(np.mean([sequence.count("CG") for sequence in sequences])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-train", type=int, default=20_000)
    parser.add_argument("--n-samples", type=int, default=4_000)
    parser.add_argument("--max-iter", type=int, default=1_500)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--n-steps", type=int)
    parser.add_argument("--heads", nargs="+", default=["letters", "score"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    rng = np.random.default_rng(args.seed)
    data = make_sequences(args.n_train, rng)
    held_out, other_half = make_sequences(args.n_samples, rng), make_sequences(args.n_samples, rng)
    result: dict[str, dict[str, float]] = {
        "held-out half": compare(other_half, held_out),
        "letters shuffled": compare(shuffle_letters(other_half, rng), held_out),
    }
    for head in args.heads:
        model = SimplexDiffusion(SequenceSpace("DNA", length=LENGTH), head=head, n_steps=args.n_steps)
        began = time.perf_counter()
        model.fit(
            data,
            max_iter=args.max_iter,
            learning_rate=args.learning_rate,
            random_state=args.seed,
        )
        fitted = time.perf_counter()
        designs = model.sample(args.n_samples, random_state=args.seed)
        sampled = time.perf_counter()
        result[f"head={head}"] = compare(designs, held_out) | {
            "seconds_fit": fitted - began,
            "seconds_sample": sampled - fitted,
        }

    print(f"{'':18s}" + "".join(f"{name:>22s}" for name in result["held-out half"]) + "   seconds: fit, sample")
    for name, row in result.items():
        seconds = [f"{row[key]:8.1f}" for key in ("seconds_fit", "seconds_sample") if key in row]
        print(f"{name:18s}" + "".join(f"{row[key]:22.5f}" for key in result["held-out half"]) + " ".join(seconds))
    if args.out:
        with open(args.out, "w") as file:
            json.dump({"arguments": vars(args), "result": result}, file, indent=2)


if __name__ == "__main__":
    main()
