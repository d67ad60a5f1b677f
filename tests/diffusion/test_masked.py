"""The masked chain: its steps by enumeration of positions and letters, its law by enumeration of orders."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from braidkit import MaskedDiffusion, SequenceSpace, VectorSpace
from braidkit.diffusion import Categorical, DiffusionModel, Unmasking
from braidkit.exceptions import InvalidParameterError, NotTrainedError
from braidkit.finetuning import rollout
from braidkit.theory.masked import masked_states, sequence_law

WORDS = ["ACGT", "CCAA", "GTGT", "TTTA", "TACG"]
SHARES = np.array([0.3, 0.25, 0.2, 0.15, 0.1])


def states_of(digits, n_letters):
    """States from digits, of which n_letters stands for a mask."""
    return one_hot(torch.as_tensor(digits), n_letters + 1)[..., :n_letters].float()


def all_states(length, n_letters):
    return states_of(list(itertools.product(range(n_letters + 1), repeat=length)), n_letters)


def words_of(length, n_letters):
    return torch.tensor(list(itertools.product(range(n_letters), repeat=length)))


def random_model(length, n_letters, seed=0, **arguments):
    """A frozen chain with random weights, large enough that the law depends on the order."""
    model = MaskedDiffusion(SequenceSpace("ACGT"[:n_letters], length), n_hidden=16, **arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.network = model._build_network()
        for parameter in model.network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    model.kind = "tokens"
    return model.freeze()


def law_by_orders(model):
    """Probabilities of all words: the mean over all orders of one position at a time."""
    length, n_letters = model.space.shape
    words = words_of(length, n_letters)
    orders = list(itertools.permutations(range(length)))
    law = torch.zeros(len(words), dtype=torch.float64)
    for order in orders:
        path, state = torch.ones(len(words), dtype=torch.float64), torch.full_like(words, n_letters)
        for position in order:
            log_probs = model.letter_log_probs(states_of(state, n_letters))[:, position].double()
            path *= log_probs.gather(1, words[:, position, None])[:, 0].exp()
            state[:, position] = words[:, position]
        law += path / len(orders)
    return law


def law_by_policies(model):
    """Probabilities of all words: forward over all states, by the policies' own log_prob."""
    length, n_letters = model.space.shape
    states = all_states(length, n_letters)
    n_masked = (states.sum(dim=2) == 0).sum(dim=1)
    law = (n_masked == length).double()
    for t in range(model.n_steps, 0, -1):
        after = torch.zeros_like(law)
        for i in (law > 0).nonzero()[:, 0]:
            step = model.policy(states[i].expand(len(states), -1, -1), t)
            after += law[i] * step.log_prob(states).double().exp()
        law = after
    return law[n_masked == 0]


@st.composite
def steps(draw):
    """A step, and another of the same chain from the same state."""
    length, n_letters = draw(st.integers(1, 4)), draw(st.integers(2, 3))
    m = draw(st.integers(1, length))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    digits = torch.randint(n_letters, (1, length), generator=generator)
    digits[0, torch.randperm(length, generator=generator)[:m]] = n_letters
    logits, other = 2 * torch.randn(2, 1, length, n_letters, generator=generator)
    state, masked = states_of(digits, n_letters), (digits == n_letters).float()
    u = draw(st.integers(1, m))
    return Unmasking(state, logits, masked, u), Unmasking(state, other, masked, u)


def enumerate_step(step):
    """Next states and their probabilities: every choice of positions, every choice of letters."""
    n_letters = step.state.shape[2]
    probabilities = step.logits[0].double().softmax(dim=1)
    choices = list(itertools.combinations(step.masked[0].nonzero()[:, 0].tolist(), step.n_revealed))
    states, law = [], []
    for positions in choices:
        for letters in itertools.product(range(n_letters), repeat=step.n_revealed):
            state, probability = step.state[0].clone(), 1 / len(choices)
            for position, letter in zip(positions, letters, strict=True):
                state[position, letter] = 1
                probability *= float(probabilities[position, letter])
            states.append(state)
            law.append(probability)
    return torch.stack(states), torch.tensor(law)


def of(step, n):
    """The same step for n designs."""
    return step.mapped(lambda part: part.expand(n, *part.shape[1:]))


@settings(max_examples=60)
@given(steps())
def test_log_prob_is_that_of_every_choice_of_positions_and_letters(pair):
    step, _ = pair
    states, law = enumerate_step(step)
    log_probs = of(step, len(states)).log_prob(states)
    assert torch.allclose(log_probs, law.log(), atol=1e-4)
    everywhere = all_states(*step.state.shape[1:])
    # All states together have probability one: those that the step cannot reach have none.
    assert float(of(step, len(everywhere)).log_prob(everywhere).exp().sum()) == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=60)
@given(steps())
def test_kl_is_that_of_the_whole_step(pair):
    step, other = pair
    states, law = enumerate_step(step)
    exact = (law * (law.log() - enumerate_step(other)[1].log())).sum()
    assert float(step.kl(other)) == pytest.approx(float(exact), rel=1e-3, abs=1e-5)
    assert float(step.kl(step)) == 0
    assert float(step.kl(other)) >= 0


def test_draws_have_the_probabilities_of_log_prob():
    generator = torch.Generator().manual_seed(0)
    state = states_of([[3, 1, 3, 3]], 3)
    step = Unmasking(state, torch.randn(1, 4, 3, generator=generator), (state.sum(dim=2) == 0).float(), 2)
    n = 40_000
    draws = of(step, n).rsample(torch.randn(n, 4, 4, generator=generator))
    states, law = enumerate_step(step)
    counts = torch.einsum("nlk,slk->ns", draws, states) == 3
    # Three letters in common with one of the states that can be reached, and with one only.
    assert torch.equal(counts.sum(dim=1), torch.ones(n, dtype=torch.long)) and draws.sum() == 3 * n
    assert torch.allclose(counts.float().mean(dim=0), law, atol=4 * 0.5 / n**0.5)


def test_draws_pass_gradients_to_the_letters_drawn_and_to_the_state():
    generator = torch.Generator().manual_seed(0)
    state = states_of([[2, 0, 2], [1, 2, 2]], 2).requires_grad_()
    logits = torch.randn(2, 3, 2, generator=generator).requires_grad_()
    noise, weight = torch.randn(2, 3, 3, generator=generator), torch.randn(2, 3, 2, generator=generator)
    step = Unmasking(state, logits, (state.detach().sum(dim=2) == 0).float(), 1)
    draw = step.rsample(noise)
    to_state, to_logits = torch.autograd.grad((weight * draw).sum(), (state, logits))
    assert torch.equal(to_state, weight)
    revealed = (draw - state).detach().sum(dim=2) > 0.5
    letters = Categorical(logits).rsample(noise[..., :-1])
    (expected,) = torch.autograd.grad((weight * letters)[revealed].sum(), logits)
    assert torch.equal(to_logits, expected) and bool((to_logits[revealed] != 0).all())


def test_letters_of_a_state_matter_to_the_gradient_of_later_steps():
    model = random_model(3, 3)
    state = states_of([[0, 3, 3]], 3).requires_grad_()
    weight = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((weight * model.policy(state, 2).logits).sum(), state)
    assert bool((gradient[0, 0] != 0).all()) and bool(gradient.isfinite().all())


@given(st.integers(1, 200).flatmap(lambda length: st.tuples(st.just(length), st.integers(1, length))))
def test_every_step_reveals_positions_and_the_last_leaves_none(sizes):
    length, n_steps = sizes
    n_masked = MaskedDiffusion(SequenceSpace("DNA", length), n_steps=n_steps).n_masked
    assert n_masked[0] == 0 and n_masked[-1] == length and len(n_masked) == n_steps + 1
    revealed = np.diff(n_masked)
    assert revealed.min() >= 1 and revealed.max() - revealed.min() <= 1


@pytest.mark.theorem
def test_the_law_of_the_chain_is_the_mean_over_all_orders():
    model = random_model(3, 3)
    by_policies = law_by_policies(model)
    assert float(by_policies.sum()) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(by_policies, law_by_orders(model), atol=1e-6)
    # Dynamic programming on the table of letters gives the same law.
    table = model.letter_log_probs(states_of(masked_states(3, 3), 3))
    assert torch.allclose(sequence_law(table).exp(), by_policies, atol=1e-6)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_samples_have_the_law_of_the_policies(n_steps):
    model, n = random_model(3, 3, n_steps=n_steps), 20_000
    drawn = model.sample(n, random_state=0, batch_size=n)
    shares = np.bincount(drawn @ np.array([9, 3, 1]), minlength=27) / n
    law = law_by_policies(model).numpy()
    assert np.abs(shares - law).max() < 5 * np.sqrt(law.max() / n)


@pytest.mark.parametrize("n_steps", [2, 3, 4])
def test_the_loss_is_the_evidence_bound_of_the_chain(n_steps):
    """Length times the loss: the mean over masks of what the revealed letters cost, summed over steps."""
    model, length = random_model(4, 2, n_steps=n_steps), 4
    word = torch.tensor([0, 1, 1, 0])
    bound = 0.0
    for m, left in itertools.pairwise(reversed(model.n_masked)):
        masks = list(itertools.combinations(range(length), m))
        for mask in masks:
            digits = word.clone()
            digits[list(mask)] = 2
            log_probs = model.letter_log_probs(states_of(digits[None], 2))[0]
            cost = -sum(float(log_probs[i, word[i]]) for i in mask)
            bound += (m - left) / m * cost / len(masks)
    x = states_of(word.expand(20_000, length), 2)
    loss = float(model._loss(x, torch.Generator().manual_seed(0)))
    assert length * loss == pytest.approx(bound, rel=0.03)
    assert bound > -math.log(law_by_policies(model)[6])  # the word is number 0110 in base 2


@pytest.fixture(scope="module")
def words():
    """Correlated letters: 400 of five words."""
    return np.random.default_rng(0).choice(WORDS, size=400, p=SHARES).tolist()


@pytest.fixture(scope="module")
def model(words):
    chain = MaskedDiffusion(SequenceSpace("DNA", 4), n_hidden=64)
    return chain.fit(words, max_iter=400, batch_size=400, validation_fraction=0, random_state=0)


def data_law(words):
    number = SequenceSpace("DNA", 4).encode(words).argmax(dim=2) @ torch.tensor([64, 16, 4, 1])
    return torch.bincount(number, minlength=256).double() / len(words)


def test_fit_learns_which_letters_go_together(model, words):
    law, data = law_by_orders(model), data_law(words)
    frequencies = SequenceSpace("DNA", 4).encode(words).double().mean(dim=0)
    independent = torch.stack([frequencies[i, words_of(4, 4)[:, i]] for i in range(4)]).prod(dim=0)
    assert float((independent - data).abs().sum()) / 2 > 0.7
    assert float((law - data).abs().sum()) / 2 < 0.03


def test_positions_revealed_together_are_independent():
    model = MaskedDiffusion(SequenceSpace("AC", 2), n_steps=1, n_hidden=16)
    model.fit(["AA", "CC"] * 100, max_iter=100, random_state=0)
    assert torch.allclose(law_by_policies(model), torch.full((4,), 0.25, dtype=torch.float64), atol=0.03)


def test_denoise_gives_the_letters_and_the_distributions_of_the_others(model):
    state = model.space.encode(["ACGT", "TACG"])
    state[:, 1:3] = 0
    mean = model.denoise(state, 2)
    assert torch.equal(mean[:, [0, 3]], state[:, [0, 3]])
    assert torch.allclose(mean[:, 1:3], model.letter_log_probs(state)[:, 1:3].exp(), atol=1e-6)
    # A..T and T..G each occur in one word only.
    assert model.space.decode(mean) == ["ACGT", "TACG"]


def test_letter_log_probs_do_not_depend_on_how_many_are_asked_for():
    model = random_model(2, 2)
    states = all_states(2, 2).repeat(8000, 1, 1)  # more than are done at once
    log_probs = model.letter_log_probs(states)
    assert torch.allclose(log_probs[-9:], model.letter_log_probs(states[:9]), atol=1e-6)
    assert torch.allclose(log_probs.exp().sum(dim=2), torch.ones(len(states), 2)) and not log_probs.requires_grad


def test_designs_do_not_depend_on_how_many_are_drawn_at_once(model):
    assert model.sample(9, random_state=3) == model.sample(9, random_state=3, batch_size=2)


@pytest.mark.parametrize("length", [5, 20])
def test_a_model_survives_saving(length, tmp_path):
    model = MaskedDiffusion(SequenceSpace("RNA", length), n_steps=4, n_hidden=8)
    model.fit(["ACGUA" * (length // 5), "UUGGC" * (length // 5)] * 10, max_iter=3, random_state=0)
    model.save_pretrained(tmp_path)
    loaded = DiffusionModel.from_pretrained(tmp_path)
    assert isinstance(loaded, MaskedDiffusion) and loaded.frozen
    assert loaded.n_masked == model.n_masked and loaded.n_hidden == 8
    assert loaded.sample(5, random_state=0) == model.sample(5, random_state=0)


def test_convolutions_learn_longer_sequences():
    words = ["ACGTAACCGGTTACGTAACC", "TTTTTGGGGGCCCCCAAAAA"]
    model = MaskedDiffusion(SequenceSpace("DNA", 20))
    model.fit(words * 50, max_iter=150, batch_size=64, validation_fraction=0, random_state=0)
    designs = model.sample(50, random_state=0)
    assert sum(design in words for design in designs) > 40 and set(words) <= set(designs)


def test_a_fine_tuned_copy_moves_away_at_the_cost_of_its_kl(model):
    tuned = model.trainable_copy()
    assert tuned.decoder is None and all(p.requires_grad for p in tuned.network.parameters())
    noise = model.draw_noise(64, torch.Generator().manual_seed(0))
    path = rollout(tuned, model, noise)
    assert torch.equal(path.kl, torch.zeros(64)) and set(path.point.unique().tolist()) <= {0.0, 1.0}
    gradients = torch.autograd.grad(path.point[:, 0, 0].sum(), list(tuned.network.parameters()))
    assert all(bool(g.isfinite().all()) and float(g.abs().sum()) > 0 for g in gradients)
    with torch.no_grad():
        tuned.network.last.bias[0] += 1.0  # an A more often in the first place
    before, after = (rollout(chain, model, noise) for chain in (model, tuned))
    assert after.point[:, 0, 0].sum() > before.point[:, 0, 0].sum() and bool((after.kl >= 0).all())
    assert float(after.kl.detach().mean()) > 0.01


def test_wrong_arguments_are_refused():
    space = SequenceSpace("DNA", 5)
    for arguments, message in (
        ({"n_steps": 0}, "n_steps must be a whole number of at least 1; got 0"),
        ({"n_steps": 2.5}, "n_steps must be a whole number of at least 1; got 2.5"),
        ({"n_steps": 6}, "n_steps must be at most the length, 5, so that each step reveals a position; got 6"),
        ({"n_hidden": 0}, "n_hidden must be a whole number of at least 1; got 0"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            MaskedDiffusion(space, **arguments)
    with pytest.raises(InvalidParameterError, match="needs a SequenceSpace"):
        MaskedDiffusion(VectorSpace(2))
    with pytest.raises(NotTrainedError, match="never trained"):
        MaskedDiffusion(space).letter_log_probs(torch.zeros(1, 5, 4))


def test_noised_states_keep_letters_and_mask_the_right_number():
    model = MaskedDiffusion(SequenceSpace("DNA", length=7), n_steps=3)
    x = model.space.encode(["ACGTACG"] * 4000)
    t = torch.arange(4000) % 4
    states = model.noised(x, t, torch.Generator().manual_seed(0))
    masked = states.sum(dim=2) == 0
    assert masked.sum(dim=1).tolist() == [model.n_masked[level] for level in t.tolist()]
    assert torch.equal(states, x * ~masked[..., None])
    # Every position is as likely as the others.
    assert torch.allclose(masked[t == 1].float().mean(dim=0), torch.full((7,), 2 / 7), atol=0.06)
    assert torch.equal(model.noised(x, 3, torch.Generator().manual_seed(0)), torch.zeros_like(x))


def test_the_noise_of_a_trajectory_is_held_once():
    """Memory grows with the length, not its square, and every entry of a draw is read at one step alone."""
    chain = MaskedDiffusion(SequenceSpace("DNA", 60))
    noise = chain.draw_noise(3, torch.Generator().manual_seed(0))
    assert noise.shape == (3, 61, 60, 5) and noise.untyped_storage().nbytes() == 3 * 60 * 5 * 4
    read = torch.zeros(3, 60)
    state = chain.initial(3).state
    for t in range(60, 0, -1):
        step = Unmasking(state, torch.zeros(3, 60, 4), (state.sum(dim=-1) == 0).float(), 1)
        after = step.rsample(noise[:, t])
        read += (after != state).any(dim=-1)
        state = after
    assert (read == 1).all()
