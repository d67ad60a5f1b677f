"""Hidden states of a masked language model as features of a reward."""

import copy

import pytest
import torch

from braidkit import GPBonusReward, MaskedDiffusion, SequenceSpace
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.persistence import digest
from braidkit.rewards import MaskedLMFeatures
from tests.language_models import MODELS, tiny_bert, tiny_esm

SPACE = SequenceSpace("protein", template="ACD___")


def rows(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return SPACE.decode(torch.rand(n, 6, 20, generator=generator))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("positions", [None, [0, 4]])
def test_features_are_the_last_hidden_states_of_the_positions(kind, positions):
    lm, tokenizer = MODELS[kind]()
    X = rows(3)
    numbers = tokenizer([" ".join(row) if kind == "bert" else row for row in X], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = lm(numbers, output_hidden_states=True).hidden_states[-1][:, 1:-1]
    states = states[:, positions or [3, 4, 5]]
    settings = {"tokenizer": tokenizer, "positions": positions}
    mean, side_by_side = (
        MaskedLMFeatures(lm, SPACE, pooling=pooling, **settings).eval() for pooling in ("mean", "positions")
    )
    x = SPACE.encode(X)
    # Before training the standardisation changes next to nothing.
    assert torch.allclose(mean(x), states.mean(dim=1), atol=1e-3)
    assert torch.allclose(side_by_side(x), states.flatten(1), atol=1e-3)


def test_features_are_frozen_and_differentiable_in_relaxed_letters():
    lm, tokenizer = tiny_esm()
    features = MaskedLMFeatures(lm, SPACE, tokenizer=tokenizer).eval()
    assert not list(features.parameters()) and all(parameter.requires_grad for parameter in lm.parameters())
    x = (0.9 * SPACE.encode(rows(2)) + 0.005).requires_grad_()
    (gradient,) = torch.autograd.grad(features(x)[:, 0].sum(), x)
    step = torch.zeros_like(x)
    step[0, 4, 7] = 1e-2
    slope = float((features(x + step) - features(x - step))[:, 0].sum().detach()) / 2e-2
    assert slope == pytest.approx(float(gradient[0, 4, 7]), rel=0.05, abs=0.02)
    with torch.no_grad():
        assert torch.allclose(features(x.detach()), features(x), atol=1e-5)


def test_measured_rows_go_through_the_language_model_once():
    lm, tokenizer = tiny_bert()
    chain = MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer)
    features = MaskedLMFeatures(chain, pooling="positions")
    assert features.shared is chain.backbone.shared
    seen = []
    features.shared.module.lm.base_model.register_forward_hook(lambda module, args, out: seen.append(len(out[0])))
    X = rows(120)
    y = [row.count("A") + 0.5 * row.count("W") for row in X]
    reward = GPBonusReward(features=features, max_iter=50, random_state=0).fit(X, y)
    assert sum(seen) == len(set(X))
    reward.predict(X)
    assert sum(seen) == len(set(X))
    x = SPACE.encode(X[:4]).requires_grad_()
    reward.lower(x).sum().backward()
    assert sum(seen) == len(set(X)) + 4 and float(x.grad.abs().sum()) > 0
    assert digest(features) == digest(copy.deepcopy(features)) != digest(MaskedLMFeatures(chain))


def test_a_reward_on_a_language_model_learns():
    lm, tokenizer = tiny_bert()
    features = MaskedLMFeatures(lm, SPACE, pooling="positions", tokenizer=tokenizer)
    X = rows(400)
    y = [row[3:].count("A") + row[3:].count("W") - row[3:].count("K") + (row[4] == "F") for row in X]
    reward = GPBonusReward(features=features, random_state=0).fit(X[:300], y[:300])
    assert reward.score(X[300:], y[300:]) > 0.3


def test_settings_that_do_not_fit_are_refused():
    lm, tokenizer = tiny_bert()
    with pytest.raises(InvalidParameterError, match='pooling must be "mean" or "positions"'):
        MaskedLMFeatures(lm, SPACE, tokenizer=tokenizer, pooling="max")
    for wrong in (6, -1, 0.7):
        with pytest.raises(InvalidParameterError, match="positions must be a whole number.*at most 5"):
            MaskedLMFeatures(lm, SPACE, tokenizer=tokenizer, positions=[wrong])
    with pytest.raises(InvalidParameterError, match="at least one"):
        MaskedLMFeatures(lm, SPACE, tokenizer=tokenizer, positions=[])
    several = SequenceSpace("protein", length=(4, 6), padding="right")
    with pytest.raises(IncompatibleModelError, match="sequences of one length"):
        MaskedLMFeatures(lm, several, tokenizer=tokenizer)
    features = MaskedLMFeatures(lm, SPACE, tokenizer=tokenizer)
    with pytest.raises(IncompatibleModelError, match=r"made for a space of shape \(6, 20\)"):
        GPBonusReward(features=features).fit([row + "A" for row in rows(20)], range(20))
    with pytest.raises(InvalidParameterError, match="needs a SequenceSpace"):
        MaskedLMFeatures(lm, tokenizer=tokenizer)
