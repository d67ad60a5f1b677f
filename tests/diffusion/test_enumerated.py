"""A chain that lists all designs of a small space, and its exact fine-tuning."""

import numpy as np
import pytest
import torch

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace, SimplexDiffusion
from braidkit.diffusion import DiffusionModel, EnumeratedDiffusion, MarkovLaw
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.theory.finite import tilted


def rows(n=120, length=3, seed=0):
    return np.random.RandomState(seed).choice(3, p=[0.5, 0.3, 0.2], size=(n, length))


@pytest.fixture(scope="module")
def model():
    return EnumeratedDiffusion(SequenceSpace("ACG", 3)).fit(rows(), random_state=0)


def all_designs(model):
    return model.designs(torch.arange(model.n_designs))


def test_law_is_the_markov_law_of_the_rows(model):
    law, _ = MarkovLaw.fit(rows(), 3, random_state=np.random.RandomState(0).randint(2**31 - 1))
    tokens = all_designs(model).argmax(dim=2)
    assert len(torch.unique(tokens, dim=0)) == 27
    torch.testing.assert_close(model.network.log_probs(), law.log_prob(tokens))


def test_draws_have_the_law(model):
    n = 20_000
    drawn = model.sample(n, random_state=0)
    share = np.bincount(drawn @ [9, 3, 1], minlength=27) / n
    expected = model.network.log_probs().exp().numpy()
    assert (abs(share - expected) < 5 * np.sqrt(expected / n) + 1e-3).all()


def test_kl_and_mean_design_are_those_of_the_laws(model):
    tuned = model.trainable_copy()
    tuned.network.tilt.data.copy_(torch.randn(27, generator=torch.Generator().manual_seed(0)))
    p, q = (chain.network.log_probs() for chain in (tuned, model))
    state = model.initial(4).rsample(torch.zeros(4, 1))
    kl = tuned.policy(state, 1).kl(model.policy(state, 1))
    torch.testing.assert_close(kl, (p.exp() * (p - q)).sum().expand(4))
    mean = torch.einsum("s,slk->lk", p.exp().float(), all_designs(model))
    torch.testing.assert_close(tuned.denoise(state, 1)[0], mean)
    x = model.space.encode(rows(5))
    assert torch.equal(model.readout(model.noised(x, 0, torch.Generator())), x)


def test_held_positions_are_not_counted():
    space = SequenceSpace("DNA", template="A__T" + "C" * 20)
    model = EnumeratedDiffusion(space)
    assert model.n_designs == 16
    words = space.decode(all_designs(model))
    assert len(set(words)) == 16
    assert all(word.startswith("A") and word.endswith("T" + "C" * 20) for word in words)


def test_saved_chain_is_the_same(model, tmp_path):
    tuned = model.trainable_copy()
    tuned.network.tilt.data.copy_(torch.randn(27, generator=torch.Generator().manual_seed(0)))
    tuned.freeze().save_pretrained(tmp_path / "model")
    loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.network.log_probs(), tuned.network.log_probs())
    assert (loaded.sample(20, random_state=0) == tuned.sample(20, random_state=0)).all()


@pytest.mark.parametrize("alpha", [0.05, 1.0])
def test_fine_tuning_of_a_small_space_is_exact(alpha):
    X = rows(200, seed=1)
    y = X @ [1.0, -0.5, 2.0] + np.random.RandomState(0).normal(0, 0.1, 200)
    space = SequenceSpace("ACG", 3)
    settings = {"reward": GPBonusReward(torch.nn.Flatten()), "space": space, "random_state": 0}
    finetuner = ConservativeDiffusionFinetuner(alpha=alpha, **settings).fit(X, y)
    assert isinstance(finetuner.model_, EnumeratedDiffusion)
    designs = all_designs(finetuner.model_)
    reward = finetuner.reward_.lower(designs.double()) / finetuner.reward_.y_std_
    expected = tilted(finetuner.pretrained_.network.log_probs(), reward, alpha)
    torch.testing.assert_close(finetuner.model_.network.log_probs().exp(), expected.exp(), atol=1e-5, rtol=1e-4)


def test_another_solver_gets_a_chain_that_it_can_train():
    X = rows(80)
    settings = {"reward": GPBonusReward(torch.nn.Flatten()), "space": SequenceSpace("ACG", 3), "random_state": 0}
    finetuner = ConservativeDiffusionFinetuner(solver="policy_gradient", max_iter=1, **settings)
    assert isinstance(finetuner.fit(X, X.sum(axis=1)).model_, SimplexDiffusion)
    with pytest.raises(IncompatibleModelError, match='a SimplexDiffusion needs solver="direct"'):
        ConservativeDiffusionFinetuner(finetuner.pretrained_, solver="exact").fit(X, X.sum(axis=1))


def test_large_spaces_are_refused():
    with pytest.raises(InvalidParameterError, match="at most 300,000; the space has 1,048,576"):
        EnumeratedDiffusion(SequenceSpace("DNA", 10))


def test_alpha_auto_keeps_enough_designs_to_choose_from():
    X, space = rows(200, length=5), SequenceSpace("ACG", 5)
    y = X @ [3.0, 1.0, 1.0, 0.5, 0.2]
    reward = GPBonusReward(c=0, lam=1e-4, max_iter=1)
    light = ConservativeDiffusionFinetuner(None, 0.01, reward=reward, space=space, random_state=0).fit(X, y)
    auto = ConservativeDiffusionFinetuner(reward=reward, space=space, random_state=0).fit(X, y)

    def n_effective(model):
        return float(1 / model.table().log_probs().exp().square().sum())

    wanted = min(200, 0.5 * n_effective(auto.pretrained_))
    assert n_effective(light.model_) < 0.2 * wanted
    assert wanted <= n_effective(auto.model_) < 1.1 * wanted
    assert auto.alpha_ > 0.1
