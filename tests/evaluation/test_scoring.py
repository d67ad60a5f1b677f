"""Log-likelihoods of sequences: against listed laws, and sums that must be one."""

import itertools

import numpy as np
import pytest
import torch

from braidkit import MaskedDiffusion, SequenceSpace, SimplexDiffusion, VectorSpace
from braidkit.diffusion import EnumeratedDiffusion, GaussianDiffusion
from braidkit.evaluation import log_likelihood

WORDS = ["".join(row) for row in itertools.product("ACGT", repeat=3)]
ROWS = [word for i, word in enumerate(WORDS) for _ in range(1 + i % 5)]


def test_a_listed_law_sums_to_one():
    chain = EnumeratedDiffusion(SequenceSpace("DNA", 3)).fit(ROWS, random_state=0)
    np.testing.assert_allclose(np.exp(log_likelihood(chain, WORDS)).sum(), 1)


def test_a_masked_chain_is_exact_where_it_is_its_markov_law():
    chain = MaskedDiffusion(SequenceSpace("DNA", 3)).fit(ROWS, max_iter=1, random_state=0)
    tokens = chain.space.encode(WORDS).argmax(dim=-1)
    with torch.no_grad():
        for parameter in chain.network.parameters():
            parameter.zero_()
    found = log_likelihood(chain, WORDS)
    np.testing.assert_allclose(found, chain.prior.log_prob(tokens).numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(), 1, rtol=1e-4)


def test_orders_of_a_masked_chain_average_to_a_lower_bound():
    """By Jensen, for any network: the mean over orders is below the log of the mean, whose sum is one."""
    chain = MaskedDiffusion(SequenceSpace("DNA", 3), prior=None).fit(ROWS, max_iter=30, random_state=0)
    by_order = np.array([log_likelihood(chain, WORDS, random_state=seed) for seed in range(60)])
    assert np.ptp(by_order, axis=0).max() > 1e-4
    assert np.exp(by_order.mean(axis=0)).sum() < 1
    np.testing.assert_allclose(np.exp(by_order).mean(axis=0).sum(), 1, atol=0.05)


def test_what_a_template_does_not_allow_has_no_probability():
    space = SequenceSpace("DNA", template="A__")
    for chain in (MaskedDiffusion(space), EnumeratedDiffusion(space)):
        found = log_likelihood(chain.fit([row for row in ROWS if row[0] == "A"], random_state=0), ["AAA", "CAA"])
        assert np.isfinite(found[0]) and found[1] == -np.inf


def test_chains_of_letters_without_a_law_and_of_vectors_have_none():
    simplex = SimplexDiffusion(SequenceSpace("DNA", 3), n_steps=2)
    assert np.isfinite(log_likelihood(simplex.fit(ROWS, max_iter=1, random_state=0), WORDS)).all()
    without = SimplexDiffusion(SequenceSpace("DNA", 3), n_steps=2, prior=None).fit(ROWS, max_iter=1, random_state=0)
    assert log_likelihood(without, WORDS) is None
    vectors = np.random.default_rng(0).normal(size=(20, 2))
    gaussian = GaussianDiffusion(VectorSpace(2), n_steps=2).fit(vectors, max_iter=1, random_state=0)
    assert log_likelihood(gaussian, vectors) is None


@pytest.mark.parametrize("row", ["AC", "ACX"])
def test_sequences_outside_the_space_are_refused(row):
    chain = EnumeratedDiffusion(SequenceSpace("DNA", 3)).fit(ROWS, random_state=0)
    with pytest.raises(ValueError, match="row 0"):
        log_likelihood(chain, [row])


def test_shorter_sequences_of_a_space_of_several_lengths_have_likelihoods_that_sum_to_one():
    space = SequenceSpace("AC", (1, 2))
    words = ["A", "C", "AA", "AC", "CA", "CC"]
    for chain in (EnumeratedDiffusion(space), MaskedDiffusion(space)):
        chain.fit([word for i, word in enumerate(words) for _ in range(i + 20)], random_state=0)
        np.testing.assert_allclose(np.exp(log_likelihood(chain, words)).sum(), 1, atol=0.05)
