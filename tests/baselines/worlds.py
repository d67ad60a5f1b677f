"""Designs of every kind of chain, small enough to learn in a second."""

import numpy as np

from braidkit import GaussianDiffusion, MaskedDiffusion, SequenceSpace, SimplexDiffusion, TabularDiffusion, VectorSpace

KINDS = ["gaussian", "simplex", "masked", "tabular"]


def trained(kind, max_iter):
    """A world whose chain has been trained, for a short while."""
    chain, X, y = world(kind)
    return chain.fit(X, max_iter=max_iter, random_state=0), X, y


def world(kind, n=400):
    """A chain without weights, designs in ascending order of their measurements, and these.

    Vectors of length 2 measured by their sum; sequences measured by their number of G.
    """
    rng = np.random.default_rng(0)
    if kind == "gaussian":
        X = rng.normal(size=(n, 2))
        y = X.sum(axis=1)
        return GaussianDiffusion(VectorSpace.from_data(X), n_steps=10, n_hidden=64), X[np.argsort(y)], np.sort(y)
    length = 3 if kind == "tabular" else 8
    space = SequenceSpace("DNA", length=length)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(n, length))]
    X.sort(key=measure)
    y = np.array([measure(row) for row in X], dtype=float)
    if kind == "simplex":
        return SimplexDiffusion(space, n_steps=10), X, y
    return (MaskedDiffusion(space, n_hidden=64) if kind == "masked" else TabularDiffusion(space, n_steps=5)), X, y


def measure(design):
    """The truth: the number of G, or the sum."""
    return design.count("G") if isinstance(design, str) else float(np.sum(design))


def mean_truth(designs):
    return float(np.mean([measure(design) for design in designs]))


def same_designs(a, b):
    return a == b if isinstance(a, list) else bool(np.allclose(a, b, atol=1e-4))
