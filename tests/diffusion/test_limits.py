"""Chains whose space has limits: no design breaks one, and the laws and KL are those that enumeration gives."""

import copy
import math

import numpy as np
import pytest
import torch

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, MaskedDiffusion, SequenceSpace, SimplexDiffusion
from braidkit.baselines import BestOfN, SMCSampler
from braidkit.diffusion import DiffusionModel, EnumeratedDiffusion, MarkovLaw
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.finetuning import TemperingSolver, sample_with_kl
from braidkit.spaces import Limits
from braidkit.theory.masked import masked_gap, masked_states, sequence_law
from tests.worlds import problem_on

LETTERS, LENGTH = "ACG", 4
WHOLE = SequenceSpace(LETTERS, LENGTH)
WORDS = torch.cartesian_prod(*[torch.arange(3)] * LENGTH)
LIMITS = Limits(parent="AACG", mutations=(1, 2), forbidden=["CC", "GA"])
SPACE = SequenceSpace(LETTERS, LENGTH, limits=LIMITS)
FITS = SPACE.automaton.meets(WORDS)
MARKOV = torch.tensor([[0.7, 0.1, 0.2], [0.2, 0.2, 0.6], [0.05, 0.8, 0.15]], dtype=torch.float64)


def chain_of_a_law(kind, transitions, space=WHOLE, **settings):
    """A chain whose letters are exactly those of a Markov law."""
    model = kind(space, **settings)
    rows = torch.randint(3, (50, LENGTH), generator=torch.Generator().manual_seed(0)).numpy()
    model.fit(rows, max_iter=1, random_state=0)  # so few rows leave the network zero
    law = MarkovLaw(LENGTH, 3)
    law.transitions.copy_(transitions)
    model.prior = law
    return model.freeze()


def letters_of(model):
    """The chain's letters in all partly masked sequences."""
    states = torch.nn.functional.one_hot(masked_states(LENGTH, 3), 4)[..., :3].float()
    return model.letter_log_probs(states).double()


def shifted(model, scale=0.2):
    """A copy with other weights, as after fine-tuning."""
    other = model.trainable_copy()
    generator = torch.Generator().manual_seed(1)
    for parameter in other.network.parameters():
        parameter.data.add_(scale * torch.randn(parameter.shape, generator=generator))
    return other.freeze()


@pytest.fixture(scope="module")
def whole():
    return chain_of_a_law(MaskedDiffusion, MARKOV)


@pytest.fixture(scope="module")
def limited(whole):
    return whole.in_space(SPACE)


def test_independent_letters_have_the_conditional_law():
    letters = torch.tensor([[0.6, 0.1, 0.3], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.1, 0.2, 0.7]], dtype=torch.float64)
    whole = chain_of_a_law(MaskedDiffusion, letters[:, None].expand(-1, 3, -1))
    conditional = whole.prior.log_prob(WORDS).exp() * FITS
    law = sequence_law(letters_of(whole.in_space(SPACE))).exp()
    torch.testing.assert_close(law, conditional / conditional.sum(), atol=1e-6, rtol=1e-5)


def test_letters_are_the_chains_own_by_the_chances_that_the_limits_are_met(whole, limited):
    """Every policy, by enumeration of all sequences that each letter can still become."""
    own, made = letters_of(whole).exp(), letters_of(limited).exp()
    every = torch.nn.functional.one_hot(WORDS[FITS], 3).double()
    expected = limited.expected.double()
    n_seen = 0
    for state, letters, policy in zip(masked_states(LENGTH, 3), own, made, strict=True):
        masked = state == 3
        agrees = ((WORDS[FITS] == state) | masked).all(dim=1)
        if not agrees.any():
            continue
        for i in masked.nonzero()[:, 0].tolist():
            others = [j for j in masked.nonzero()[:, 0].tolist() if j != i]
            weight = (every * expected).sum(dim=2)[:, others].prod(dim=1) * agrees
            exact = letters[i] * torch.einsum("s,sk->k", weight, every[:, i])
            torch.testing.assert_close(policy[i], exact / exact.sum(), atol=1e-6, rtol=1e-5)
            assert torch.equal(policy[i] == 0, exact == 0)
            n_seen += 1
    assert n_seen > 100


def test_what_limits_are_weighed_by_is_what_the_chain_expects_beside_the_parents_letters(whole, limited):
    parent = WHOLE.encode([LIMITS.parent])
    for i in range(LENGTH):
        state = parent.clone()
        state[:, i] = 0
        torch.testing.assert_close(limited.expected[i], whole.letter_log_probs(state)[0, i].exp())
    assert torch.equal(shifted(limited).expected, limited.expected)


@pytest.mark.parametrize("scale", [0.2, 20.0])
def test_no_design_of_any_weights_breaks_a_limit_and_shares_are_those_of_the_law(limited, scale):
    tuned = shifted(limited, scale)
    law = sequence_law(letters_of(tuned)).exp()
    assert float(law[~FITS].sum()) == 0 and float(law.sum()) == pytest.approx(1)
    drawn = tuned.sample(5000, random_state=0)
    counts = np.bincount(drawn @ [27, 9, 3, 1], minlength=81) / len(drawn)
    np.testing.assert_allclose(counts, law.numpy(), atol=0.028)
    assert (counts[~FITS.numpy()] == 0).all()


def test_kl_of_a_limited_chain_is_exact(limited):
    tuned = shifted(limited)
    noise = limited.draw_noise(5000, torch.Generator().manual_seed(0))
    kl = sample_with_kl(tuned, limited, noise, batch_size=2500).kl.double()
    exact = masked_gap(letters_of(tuned), letters_of(limited), torch.zeros(81), 1.0)
    assert float(exact) > 0.05 and kl.isfinite().all()
    assert float(kl.mean()) == pytest.approx(float(exact), abs=4 * float(kl.std()) / len(kl) ** 0.5)


def test_limits_that_leave_everything_change_nothing(whole):
    free = whole.in_space(SequenceSpace(LETTERS, LENGTH, limits=Limits("AACG", LENGTH)))
    assert (free.sample(50, random_state=0) == whole.sample(50, random_state=0)).all()
    assert torch.equal(letters_of(free), letters_of(whole)) and free.n_steps == whole.n_steps


def test_limits_come_before_the_support_of_the_law():
    """Where no sequence of the law has so few mutations, designs are within the limits all the same."""
    transitions = torch.zeros(LENGTH, 3, 3, dtype=torch.float64)
    transitions[:, [0, 1, 2], [1, 2, 0]] = 1  # C after A, G after C, A after G
    whole = chain_of_a_law(MaskedDiffusion, transitions)
    space = SequenceSpace(LETTERS, LENGTH, limits=Limits("AAAA", (1, 1)))
    drawn = whole.in_space(space).sample(200, random_state=0)
    assert ((drawn != 0).sum(axis=1) == 1).all()


def test_limits_are_kept_one_letter_a_step(whole):
    assert MaskedDiffusion(WHOLE, n_steps=2).in_space(SPACE).n_steps == 4
    with pytest.raises(InvalidParameterError, match="n_steps must be 4 or left out where designs have limits"):
        MaskedDiffusion(SPACE, n_steps=2)


def test_a_listed_chain_has_the_conditional_law_and_lists_nothing_else():
    rows = WORDS[torch.randint(81, (400,), generator=torch.Generator().manual_seed(0))].numpy()
    whole = EnumeratedDiffusion(WHOLE).fit(rows, random_state=0)
    law = whole.table().log_probs().exp()[FITS]
    for chain in (whole.in_space(SPACE), EnumeratedDiffusion(SPACE).fit(rows, random_state=0)):
        assert chain.n_designs == int(FITS.sum())
        torch.testing.assert_close(chain.table().log_probs().exp(), law / law.sum())
    with pytest.raises(IncompatibleModelError, match="lists the designs of"):
        chain.in_space(SequenceSpace(LETTERS, LENGTH, limits=Limits("AACG", 1)))
    # Few mutants of a parent can be listed, however long it is.
    mutants = EnumeratedDiffusion(SequenceSpace("DNA", 100, limits=Limits("A" * 100, 2, ["CC"])))
    assert mutants.n_designs == 1 + 300 + math.comb(100, 2) * 9 - 99
    assert len(set(mutants.space.decode(mutants.designs(torch.arange(0, mutants.n_designs, 9))))) == 4973


def test_designs_of_a_simplex_chain_are_moved_within_the_limits():
    whole = chain_of_a_law(SimplexDiffusion, MARKOV, n_steps=10)
    noise = whole.draw_noise(200, torch.Generator().manual_seed(0))
    limited = whole.in_space(SPACE)
    points = limited.sample_points(noise)
    tokens = points.argmax(dim=2)
    fits = SPACE.automaton.meets(tokens)
    designs = SPACE.discretise(points).argmax(dim=2)
    assert SPACE.automaton.meets(designs).all() and torch.equal(designs[fits], tokens[fits])
    assert SPACE.n_moved(points)["any"] == int((~fits).sum()) > 0


def test_a_limited_chain_survives_saving(limited, tmp_path):
    tuned = shifted(limited)
    tuned.save_pretrained(tmp_path / "model")
    loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    assert loaded.space == SPACE and torch.equal(letters_of(loaded), letters_of(tuned))


def mutant_rows(n=80, seed=0):
    rng = np.random.default_rng(seed)
    rows = ["".join(row) for row in rng.choice(list("ACGT"), (n, 8))]
    return rows, np.array([row.count("G") + 0.1 * rng.normal() for row in rows])


PARENT = SequenceSpace("DNA", 8, limits=Limits("ACGTACGT", (1, 2), max_homopolymer=2))


def within(designs):
    n = [sum(a != b for a, b in zip(row, "ACGTACGT", strict=True)) for row in designs]
    return set(n) <= {1, 2} and not any(letter * 3 in row for row in designs for letter in "ACGT")


@pytest.mark.parametrize("solver", ["auto", "trajectory_balance", "policy_gradient"])
def test_a_finetuner_makes_mutants_of_a_parent(solver):
    X, y = mutant_rows()
    reward = GPBonusReward(max_iter=2)
    finetuner = ConservativeDiffusionFinetuner(
        space=PARENT, reward=reward, solver=solver, max_iter=2, batch_size=8, random_state=0
    ).fit(X, y)
    kind = EnumeratedDiffusion if solver == "auto" else MaskedDiffusion
    assert type(finetuner.model_) is kind and within(finetuner.sample(60, random_state=0))


def test_a_tempered_chain_follows_its_population_of_mutants():
    """Not held twice to the parent: by the law of sequences near it, and by chances that the first law had."""
    X, _ = mutant_rows(200)
    parent = "ACGTACGTACGT"
    space = SequenceSpace("DNA", 12, limits=Limits(parent, 3))
    chain = MaskedDiffusion(space, n_hidden=8).fit([row + row[:4] for row in X], max_iter=1, random_state=0)
    problem = problem_on(chain, lambda x: x[..., 2].sum(dim=1), alpha=0.5, batch_size=300)
    solver = TemperingSolver().setup(problem)
    for i in range(6):
        solver.update(i)
    tuned = solver.problem.model
    n_g = [
        float((model.sample_points(model.draw_noise(300, torch.Generator().manual_seed(0))).argmax(dim=2) == 2).sum())
        for model in (chain, tuned)
    ]
    goal = float((solver.population.state == 2).sum())
    assert n_g[1] > 0.4 * n_g[0] + 0.6 * goal and goal > 1.3 * n_g[0]
    # The letters that it expects belong to a checkpoint.
    best = copy.deepcopy(tuned.trainable.state_dict())
    assert not torch.equal(tuned.expected, chain.expected)
    tuned.expected.zero_()
    tuned.trainable.load_state_dict(best)
    assert float(tuned.expected.sum()) == pytest.approx(12, rel=1e-4)


def test_pretrained_chains_and_baselines_keep_the_limits():
    X, y = mutant_rows()
    chain = SimplexDiffusion(SequenceSpace("DNA", 8), n_steps=4).fit(X, max_iter=2, random_state=0)
    reward = GPBonusReward(max_iter=2)
    settings = {"reward": reward, "space": PARENT, "random_state": 0}
    for estimator in (
        ConservativeDiffusionFinetuner(chain, max_iter=1, batch_size=8, **settings),
        BestOfN(pretrained=chain, n_candidates=2, **settings),
        SMCSampler(pretrained=chain, n_particles=8, **settings),
    ):
        assert within(estimator.fit(X, y).sample(30, random_state=0))
