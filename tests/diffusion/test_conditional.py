"""Chains that see a condition: the guided combination by hand, exact laws, and what is kept and loaded."""

import numpy as np
import pytest
import torch
from torch import nn

from braidkit import (
    GaussianDiffusion,
    MaskedDiffusion,
    SequenceSpace,
    SimplexDiffusion,
    TabularDiffusion,
    VectorSpace,
)
from braidkit.diffusion import DiffusionModel
from braidkit.diffusion.conditional import fit_guided
from braidkit.diffusion.guided_network import GuidedNetwork, with_null
from braidkit.exceptions import IncompatibleModelError

DNA = SequenceSpace("DNA", length=6)


def make_chain(kind):
    if kind == "gaussian":
        return GaussianDiffusion(VectorSpace(2), n_steps=10, n_hidden=32)
    if kind == "masked":
        return MaskedDiffusion(DNA, n_hidden=32)
    return SimplexDiffusion(DNA, n_steps=10, head="score" if kind == "score" else "letters")


def two_classes(chain, n=400):
    """Points of two classes that hardly overlap: mostly A or mostly T, and vectors around -2 and 2."""
    generator = torch.Generator().manual_seed(0)
    second = torch.arange(n) % 2
    if isinstance(chain.space, VectorSpace):
        return torch.randn(n, 2, generator=generator) * 0.5 + 4 * second[:, None] - 2, second
    other = torch.randint(4, (n, 6), generator=generator)
    own = torch.where(torch.rand(n, 6, generator=generator) < 0.8, 3 * second[:, None], other)
    return nn.functional.one_hot(own, 4).float(), second


def belongs_to_second(chain, points):
    if isinstance(chain.space, VectorSpace):
        return float((points.mean(dim=1) > 0).float().mean())
    letters = points.argmax(dim=2)
    return float(((letters == 3).sum(dim=1) > (letters == 0).sum(dim=1)).float().mean())


def train(chain, x, second, target, **settings):
    conditions = nn.functional.one_hot(second, 2).float()
    wanted = nn.functional.one_hot(torch.tensor(target), 2).float()
    settings = {"strength": 1.0, "dropout": 0.2, "max_iter": 300, "seed": 0} | settings
    return fit_guided(chain, x, conditions, wanted, **settings)


def test_a_condition_stands_beside_the_state_and_guidance_is_linear_in_it():
    """f(null) + s (f(c) - f(null)), by hand, for states of one axis and of two."""
    linear = nn.Linear(2 + 3, 2)
    x, condition = torch.randn(4, 2), torch.tensor([[0.5, -1.0]])
    for strength in (1.0, 3.0):
        guided = GuidedNetwork(linear, with_null(condition, 0.0), strength)
        seen = linear(torch.cat([x, torch.tensor([[0.5, -1.0, 0.0]]).expand(4, 3)], dim=1))
        null = linear(torch.cat([x, torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3)], dim=1))
        assert torch.allclose(guided(x), null + strength * (seen - null), atol=1e-6)
        by_position = guided(x.reshape(2, 2, 2))
        assert torch.allclose(by_position.reshape(4, 2), guided(x), atol=1e-6)


def test_the_null_token_hides_the_condition():
    token = with_null(torch.tensor([[3.0], [5.0]]), torch.tensor([True, False]))
    assert token.tolist() == [[0.0, 1.0], [5.0, 0.0]]


@pytest.mark.parametrize("kind", ["gaussian", "masked", "simplex", "score"])
def test_chains_learn_conditions_and_survive_saving(kind, tmp_path):
    chain = make_chain(kind)
    x, second = two_classes(chain)
    assert 0 < train(chain, x, second, target=1) <= 300
    noise = chain.draw_noise(200, torch.Generator().manual_seed(1))
    points = chain.sample_points(noise)
    assert chain.frozen and belongs_to_second(chain, points) > 0.9
    guided = chain.network
    # The same weights, asked for the other class.
    chain.network = GuidedNetwork(guided.network, with_null(torch.tensor([[1.0, 0.0]]), 0.0))
    assert belongs_to_second(chain, chain.sample_points(noise)) < 0.1
    # And without a condition, for both.
    chain.network = GuidedNetwork(guided.network, with_null(torch.zeros(1, 2), 1.0))
    assert 0.25 < belongs_to_second(chain, chain.sample_points(noise)) < 0.75
    chain.network = guided
    chain.save_pretrained(tmp_path / "model")
    loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.sample_points(noise), points)
    chain.trainable_copy().save_pretrained(tmp_path / "copy")
    assert torch.equal(DiffusionModel.from_pretrained(tmp_path / "copy").sample_points(noise), points)


def test_guidance_tilts_letters_by_a_known_amount():
    """One position, one step: the law is p(c) (p(c) / p)^(s - 1), normalised, with the learned p(c) and p."""
    space = SequenceSpace("ACG", length=1)
    chain = MaskedDiffusion(space, n_hidden=16)
    rng = np.random.default_rng(0)
    second = torch.from_numpy(rng.integers(2, size=4000))
    laws = np.array([[0.6, 0.3, 0.1], [0.3, 0.4, 0.3]])
    letters = torch.tensor([rng.choice(3, p=laws[i]) for i in second])
    x = nn.functional.one_hot(letters, 3).float()[:, None]
    train(chain, x, second, target=1, strength=3.0, dropout=0.5, max_iter=600, learning_rate=0.01)
    tilted = laws[1] * (laws[1] / laws.mean(axis=0)) ** 2
    found = chain.policy(torch.zeros(1, 1, 3), 1).logits.softmax(dim=-1)[0, 0]
    assert found.tolist() == pytest.approx((tilted / tilted.sum()).tolist(), abs=0.06)


def test_rows_are_drawn_by_weight():
    """Half of the rows, but a third of the weight, are the second class's: the law learned has a third of it."""
    chain = MaskedDiffusion(SequenceSpace("AC", length=1), n_hidden=16)
    second = torch.arange(2000) % 2
    x = nn.functional.one_hot(second, 2).float()[:, None]
    conditions = torch.zeros(2000, 1)
    weights = torch.where(second == 1, 1.0, 2.0)
    fit_guided(chain, x, conditions, torch.zeros(1), strength=1.0, dropout=0.1, weights=weights, max_iter=400)
    share = chain.policy(torch.zeros(1, 1, 2), 1).logits.softmax(dim=-1)[0, 0, 1]
    assert float(share) == pytest.approx(1 / 3, abs=0.04)


def test_training_leaves_the_global_generator_alone_and_repeats():
    state = torch.random.get_rng_state()
    chains = []
    for _ in range(2):
        chain = make_chain("gaussian")
        train(chain, *two_classes(chain), target=0, max_iter=5)
        chains.append(chain)
    assert torch.equal(state, torch.random.get_rng_state())
    first, second = (chain.state_dict() for chain in chains)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tables_take_no_condition():
    chain = TabularDiffusion(SequenceSpace("AC", length=2))
    x = torch.eye(2).repeat(4, 1, 1)
    with pytest.raises(IncompatibleModelError, match="takes no condition; pass a MaskedDiffusion"):
        train(chain, x, torch.arange(4) % 2, target=1)


def test_networks_without_conditions_are_what_checkpoints_hold():
    velocity = make_chain("gaussian")._build_network().state_dict()
    assert {name: tuple(value.shape) for name, value in velocity.items()} == {
        "first.weight": (32, 10),
        "first.bias": (32,),
        "second.weight": (32, 32),
        "second.bias": (32,),
        "last.weight": (2, 32),
        "last.bias": (2,),
    }
    letters = make_chain("masked")._build_network().state_dict()
    assert letters["first.weight"].shape == (32, 30) and list(letters)[0] == "first.weight" and len(letters) == 8
    convolutions = MaskedDiffusion(SequenceSpace("DNA", length=20))._build_network().state_dict()
    assert convolutions["convolutions.first.weight"].shape == (32, 5, 5)
    assert make_chain("simplex")._build_network().state_dict()["first.weight"].shape == (32, 4, 5)


@pytest.mark.parametrize("kind", ["gaussian", "masked", "simplex", "score"])
def test_an_untrained_copy_has_the_settings_and_no_weights(kind):
    chain = make_chain(kind)
    copy = chain.untrained_copy()
    assert type(copy) is type(chain) and copy.space == chain.space and not copy.is_trained
    assert copy._config() == chain._config()
