"""DDOM: its weights by hand, its classes, and designs under the condition of the best on every chain."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit import MaskedDiffusion, SequenceSpace, SimplexDiffusion, TabularDiffusion
from braidkit.baselines import DDOM, bin_weights
from braidkit.baselines.ddom import quantile_classes
from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from tests.baselines.worlds import mean_truth, same_designs, trained

MEASUREMENTS = st.lists(st.integers(-50, 50), min_size=2, max_size=40).filter(lambda y: len(set(y)) > 1)


def test_weights_by_hand():
    """y = 0, 0, 0, 4 in two bins: z = -1/sqrt 3 and sqrt 3, edges at 1/sqrt 3 and sqrt 3, tau = 4/sqrt 3."""
    first = np.exp(1 / 4) * 0.75 / 0.85
    second = np.exp(3 / 4) * 0.25 / 0.35
    p = np.array([first, second]) / (first + second)
    weights = bin_weights(np.array([0.0, 4.0, 0.0, 0.0]), n_bins=2, smoothing=0.1, temperature_quantile=0.5)
    assert weights.tolist() == pytest.approx([p[0] / 0.75, p[1] / 0.25, p[0] / 0.75, p[0] / 0.75])
    clipped = bin_weights(
        np.array([0.0, 4.0, 0.0, 0.0]), n_bins=2, smoothing=0.1, temperature_quantile=0.5, max_weight=1.5
    )
    assert clipped.tolist() == pytest.approx([p[0] / 0.75, 1.5, p[0] / 0.75, p[0] / 0.75])


@settings(max_examples=60)
@given(MEASUREMENTS, st.integers(2, 30), st.floats(0.1, 0.99))
def test_weights_are_those_of_a_law_over_bins(y, n_bins, quantile):
    """Unclipped they average to one, and a change of units does not change them."""
    y = np.array(y, dtype=float)
    arguments = {"n_bins": n_bins, "temperature_quantile": quantile, "max_weight": np.inf}
    weights = bin_weights(y, **arguments)
    assert (weights >= 0).all() and weights.mean() == pytest.approx(1.0)
    assert bin_weights(4 * y - 16, **arguments) == pytest.approx(weights)
    assert bin_weights(y).max() <= 5.0


@given(MEASUREMENTS)
def test_the_top_class_has_the_best_rows_and_always_some(y):
    y = np.array(y, dtype=float)
    top = quantile_classes(y)[:, -1].numpy() == 1
    assert top[y == y.max()].all() and y[top].min() >= np.quantile(y, 0.95)
    assert (~top).any() or y.min() >= np.quantile(y, 0.95)


@pytest.mark.parametrize("conditioning", ["continuous", "class"])
@pytest.mark.parametrize("kind", ["gaussian", "simplex", "masked"])
def test_designs_of_every_chain_get_better(kind, conditioning):
    """From rows in ascending order, which an ineffective shuffle would learn wrongly."""
    chain, X, y = trained(kind, max_iter=1)
    method = DDOM(chain, conditioning=conditioning, max_iter=200, random_state=0).fit(X, y)
    designs = method.sample(100, random_state=0)
    assert type(method.model_) is type(chain) and method.model_.n_steps == chain.n_steps
    assert method.model_ is not chain and method.model_.frozen and 0 < method.n_iter_ <= 200
    assert mean_truth(designs) > y.mean() + 1.2 * y.std()
    if kind == "gaussian":
        assert method.score(X, y) > y.mean() + 0.5 * y.std()


def test_without_guidance_designs_are_those_of_the_condition():
    """Strength one on N(0, 1) designs that are their own measurements, asked for the largest."""
    X = np.random.default_rng(0).normal(size=(2000, 1))
    designs = DDOM(strength=1.0, max_iter=600, random_state=0).fit(X, X[:, 0]).sample(200, random_state=0)
    assert designs.mean() == pytest.approx(X.max(), abs=0.5) and designs.std() < 0.5


def test_weights_of_the_chain_that_was_given_are_not_used(tmp_path):
    settings = {"max_iter": 10, "random_state": 0}
    (short, X, y), (long, _, _) = (trained("masked", max_iter=max_iter) for max_iter in (1, 30))
    from_short, from_long = DDOM(short, **settings).fit(X, y), DDOM(long, **settings).fit(X, y)
    assert from_short.sample(20, random_state=0) == from_long.sample(20, random_state=0)
    from_long.model_.save_pretrained(tmp_path / "model")
    loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    assert loaded.sample(20, random_state=0) == from_long.sample(20, random_state=0)


def test_a_fit_repeats_and_the_batch_does_not_change_designs():
    chain, X, y = trained("gaussian", max_iter=1)
    first, second = (DDOM(chain, max_iter=20, random_state=1).fit(X, y) for _ in range(2))
    designs = first.sample(9, random_state=0)
    assert np.array_equal(designs, second.sample(9, random_state=0))
    assert same_designs(designs, second.set_params(batch_size=2).sample(9, random_state=0))


def test_the_default_chains_are_simplex_and_gaussian():
    method = DDOM(max_iter=1, random_state=0).fit(["ACGT", "ACGA", "TCGA", "TTTT"], [0.0, 1.0, 2.0, 3.0])
    assert isinstance(method.model_, SimplexDiffusion) and len(method.sample(2, random_state=0)[0]) == 4
    assert all(not parameter.requires_grad for parameter in method.model_.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"conditioning": "median"}, 'conditioning must be "continuous" or "class"; got'),
        ({"strength": -1.0}, "strength must be a number > 0"),
        ({"dropout": 1.0}, "dropout must be .* < 1 or .*got 1.0"),
        ({"n_bins": 1}, "n_bins must be a whole number of at least 2"),
        ({"smoothing": 0}, "smoothing must be a number > 0"),
        ({"temperature_quantile": 1.5}, "temperature_quantile must be .* < 1"),
        ({"max_weight": "large"}, "max_weight must be a number > 0"),
        ({"max_iter": 0}, "max_iter must be a whole number of at least 1"),
        ({"validation_fraction": 1.0}, "validation_fraction must be .* < 1"),
        ({"pretrained": "model/"}, "pretrained must be a DiffusionModel or None"),
    ],
)
def test_bad_parameters_are_told_before_any_work(parameters, message):
    with pytest.raises(InvalidParameterError, match=message):
        DDOM(**parameters).fit([[0.0], [1.0]], [0.0, 1.0])


def test_chains_that_cannot_be_conditioned_or_make_other_designs_are_refused():
    table = TabularDiffusion(SequenceSpace("DNA", length=2)).fit(["AC", "GT"])
    with pytest.raises(IncompatibleModelError, match="pass a MaskedDiffusion"):
        DDOM(table).fit(["AC", "GT"], [0.0, 1.0])
    longer = MaskedDiffusion(SequenceSpace("DNA", length=3)).fit(["ACG", "GTA"], max_iter=1)
    with pytest.raises(IncompatibleModelError, match="pretrained makes 3-letter DNA, but X is 2-letter DNA"):
        DDOM(longer).fit(["AC", "GT"], [0.0, 1.0])
