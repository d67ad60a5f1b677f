import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.oracles import EhrlichLandscape

SHAPES = [
    {"alphabet": "protein", "length": 32, "n_motifs": 2, "motif_length": 4},
    {"alphabet": "DNA", "length": 30, "n_motifs": 3, "motif_length": 4, "quantization": 2},
    {"alphabet": "protein", "length": 64, "n_motifs": 4, "motif_length": 4},
    {"alphabet": "ABC", "length": 7, "n_motifs": 2, "motif_length": 3, "quantization": 2},
]
landscapes = st.builds(
    lambda shape, seed: EhrlichLandscape(**shape, random_state=seed), st.sampled_from(SHAPES), st.integers(0, 10_000)
)


def tokens_of(landscape, X):
    return np.array([[landscape.space.alphabet.index(letter) for letter in x] for x in X])


def slow_value(landscape, x):
    """The definition, a letter at a time."""
    tokens = [landscape.space.alphabet.index(letter) for letter in x]
    if any(landscape.transitions[a, b] == 0 for a, b in zip(tokens, tokens[1:], strict=False)):
        return 0.0
    value = 1.0
    for motif, offsets in zip(landscape.motifs, landscape.offsets, strict=True):
        k, q = len(motif), landscape.quantization
        best = 0
        for start in range(len(tokens) - offsets[-1]):
            best = max(best, sum(tokens[start + o] == m for o, m in zip(offsets, motif, strict=True)))
        value *= np.floor(best * q / k + 1e-9) / q
    return value


@settings(max_examples=40, deadline=None)
@given(landscape=landscapes, seed=st.integers(0, 10_000))
def test_ehrlich_is_its_definition(landscape, seed):
    rng = np.random.default_rng(seed)
    X = landscape.sample(5, random_state=seed)
    X += ["".join(rng.choice(list(landscape.space.alphabet), landscape.length)) for _ in range(5)]
    np.testing.assert_allclose(landscape.predict(X), [slow_value(landscape, x) for x in X], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(landscape=landscapes)
def test_largest_value_of_an_ehrlich_function_is_one_and_is_reached(landscape):
    best = landscape.optimum()
    assert landscape.predict([best]).tolist() == [1.0]
    assert landscape.is_valid([best]).all()


@settings(max_examples=40, deadline=None)
@given(landscape=landscapes, seed=st.integers(0, 10_000))
def test_feasible_sequences_of_an_ehrlich_function_are_those_without_banned_pairs(landscape, seed):
    X = landscape.sample(20, random_state=seed)
    assert landscape.is_valid(X).all()
    banned = np.argwhere(landscape.transitions == 0)
    a, b = banned[seed % len(banned)]
    tokens = tokens_of(landscape, X)
    tokens[:, 2:4] = a, b
    broken = ["".join(landscape.space.alphabet[i] for i in row) for row in tokens]
    assert not landscape.is_valid(broken).any()
    assert (landscape.predict(broken) == 0).all()


@settings(max_examples=40, deadline=None)
@given(landscape=landscapes, seed=st.integers(0, 10_000))
def test_shares_of_motifs_are_multiples_of_the_quantum(landscape, seed):
    steps = landscape.qualities(landscape.sample(20, random_state=seed)) * landscape.quantization
    np.testing.assert_array_equal(steps, steps.round())
    assert (steps >= 0).all() and (steps <= landscape.quantization).all()


@settings(max_examples=40, deadline=None)
@given(landscape=landscapes)
def test_chain_of_an_ehrlich_function_is_ergodic_with_banned_pairs(landscape):
    transitions = landscape.transitions
    np.testing.assert_allclose(transitions.sum(axis=1), 1)
    assert (np.diag(transitions) > 0).all() and (transitions == 0).any(axis=1).all()
    assert (np.linalg.matrix_power(transitions, 400) > 0).all()
    np.testing.assert_allclose(landscape.initial @ transitions, landscape.initial, atol=1e-9)


def test_ehrlich_samples_follow_the_chain():
    landscape = EhrlichLandscape("DNA", 20, n_motifs=2, motif_length=3)
    tokens = tokens_of(landscape, landscape.sample(4000, random_state=0))
    counts = np.zeros((4, 4))
    np.add.at(counts, (tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1)
    np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), landscape.transitions, atol=0.02)
    np.testing.assert_allclose(np.bincount(tokens[:, 0], minlength=4) / 4000, landscape.initial, atol=0.03)


def test_seed_makes_the_ehrlich_function():
    first, again, other = (EhrlichLandscape(random_state=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.motifs, again.motifs)
    np.testing.assert_array_equal(first.transitions, again.transitions)
    assert (first.transitions != other.transitions).any()


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_ehrlich_agrees_with_the_published_implementation(shape):
    closed_form = pytest.importorskip("holo.test_functions.closed_form", reason="needs pytorch-holo")
    ours = EhrlichLandscape(**shape, random_state=3)
    theirs = closed_form.Ehrlich(
        num_states=ours.space.n_letters,
        dim=ours.length,
        num_motifs=len(ours.motifs),
        motif_length=ours.motifs.shape[1],
        quantization=ours.quantization,
    )
    theirs.transition_matrix = torch.from_numpy(ours.transitions)
    theirs.motifs = list(torch.from_numpy(ours.motifs))
    theirs.spacings = list(torch.from_numpy(np.diff(ours.offsets, axis=1)))
    letters = list(ours.space.alphabet)
    random = ["".join(row) for row in np.random.default_rng(0).choice(letters, (50, ours.length))]
    X = [*ours.sample(300, random_state=0), *random, ours.optimum()]
    expected = theirs(torch.from_numpy(tokens_of(ours, X))).clamp(min=0).numpy()  # they give -inf where infeasible
    np.testing.assert_allclose(ours.predict(X), expected, atol=1e-6)
    assert ours.space.decode(ours.space.encode([ours.optimum()]))[0] == ours.optimum()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 7}, "length must be at least n_motifs . motif_length = 8; got 7"),
        ({"quantization": 5}, "quantization must be a whole number of at least 1 and at most 4; got 5"),
        ({"motif_length": 1}, "motif_length must be a whole number of at least 2; got 1"),
        ({"n_motifs": 0.5}, "n_motifs must be a whole number of at least 1; got 0.5"),
        ({"alphabet": "AB"}, "at least three letters"),
    ],
)
def test_ehrlich_parameter_outside_its_range(settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        EhrlichLandscape(**settings)


def test_row_that_an_ehrlich_function_cannot_read():
    with pytest.raises(InvalidDesignError, match="row 1"):
        EhrlichLandscape().predict(["A" * 32, "A" * 31])
