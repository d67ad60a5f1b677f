"""Masked language models as chains: their logits, their adapters, their law by enumeration, what is saved of them."""

import copy
import itertools
import json
import sys

import pytest
import torch
from torch.nn.functional import one_hot

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, MaskedDiffusion, SequenceSpace
from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError, MissingExtraError
from braidkit.finetuning import DirectSolver, TrajectoryBalanceSolver
from braidkit.networks import letter_tokens, pretrained_lm, shared_parts
from braidkit.persistence import digest, remove_saved
from braidkit.spaces import Limits
from braidkit.theory.masked import best_letters, masked_gap, masked_states, position_floor, sequence_law
from tests.language_models import LOWERCASE, MODELS, PROTEIN, kmers, random_weights, tiny_bert, tiny_esm, tokenizer_of
from tests.worlds import problem_on

SPACE = SequenceSpace("protein", 9)
KINDS = pytest.mark.parametrize("kind", MODELS)


def chain_of(kind, space=SPACE, **settings):
    lm, tokenizer = MODELS[kind](space.alphabet)
    return MaskedDiffusion.from_masked_lm(lm, space, tokenizer=tokenizer, **settings)


def moved(chain, seed=0):
    """A fine-tuned copy, whose adapter does something."""
    model = chain.trainable_copy()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.trainable.own.values():
            value += 0.3 * torch.randn(value.shape, generator=generator)
    return model


def masked_rows(space, shares=(0.0, 0.15, 0.5, 0.9, 1.0)):
    """One-hot rows with zeros where letters are masked."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(space.n_letters, (len(shares), space.length), generator=generator)
    masked = torch.stack([torch.arange(space.length) < share * space.length for share in shares])
    return one_hot(tokens, space.n_letters).float() * ~masked[..., None]


def logits_by_numbers(lm, tokenizer, space, x):
    """Logits of the letters, from the text that a user of the language model would write."""
    rows = []
    for row in x:
        words = [space.alphabet[p.argmax()] if p.any() else tokenizer.mask_token for p in row]
        numbers = tokenizer.convert_tokens_to_ids(words)
        rows.append([tokenizer.cls_token_id, *numbers, tokenizer.sep_token_id])
    letters = tokenizer.convert_tokens_to_ids(list(space.alphabet))
    with torch.no_grad():
        return lm(input_ids=torch.tensor(rows)).logits[:, 1:-1, letters]


@KINDS
def test_logits_are_those_of_the_language_model_on_token_numbers_at_every_share_of_masks(kind):
    lm, tokenizer = MODELS[kind]()
    chain = MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer)
    x = masked_rows(SPACE)
    expected = logits_by_numbers(lm, tokenizer, SPACE, x)
    assert torch.allclose(chain._logits(x), expected, atol=1e-5)
    assert expected.std() > 0.1


@KINDS
def test_logits_are_differentiable_in_relaxed_letters(kind):
    chain = chain_of(kind)
    x = one_hot(torch.arange(9) % 20, 20).float()[None].double().requires_grad_()
    weights = torch.randn(1, 9, 20, generator=torch.Generator().manual_seed(0))

    def total(point):
        return (chain.network(point.float()) * weights).sum()

    (gradient,) = torch.autograd.grad(total(x), x)
    for position, letter in [(0, 3), (4, 7), (8, 1)]:
        step = torch.zeros_like(x)
        step[0, position, letter] = 1e-2
        slope = (total(x + step) - total(x - step)) / 2e-2
        assert float(slope.detach()) == pytest.approx(float(gradient[0, position, letter]), rel=0.05, abs=0.02)


@KINDS
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_in_half_precision_has_logits_and_an_adapter_in_float32(kind, dtype, tmp_path):
    lm, tokenizer = MODELS[kind]()
    lm.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    half = MaskedDiffusion.from_masked_lm(tmp_path / "lm", SPACE, dtype=dtype)
    x = masked_rows(SPACE)
    logits = half._logits(x)
    assert half.backbone.shared.module.lm.dtype == getattr(torch, dtype) and logits.dtype == torch.float32
    whole = MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer)._logits(x)
    assert (logits - whole).abs().max() < 0.1 * whole.abs().max()
    problem = problem_on(half, lambda point: point[..., 0].mean(dim=-1), batch_size=8)
    DirectSolver().setup(problem).update(0)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in problem.model.parameters())


@KINDS
def test_the_reference_is_one_pass_of_the_language_model_without_the_adapter(kind):
    chain = chain_of(kind, n_steps=9)
    lm = chain.backbone.shared.module.lm
    calls = []
    lm.register_forward_hook(lambda *_: calls.append("model"))
    for name, part in lm.named_modules():
        if name.endswith("lora_A.default"):
            part.register_forward_hook(lambda *_: calls.append("adapter"))
    x = masked_rows(SPACE)
    model = chain.trainable_copy()
    with torch.no_grad():
        assert torch.equal(chain.policy(x, 9).logits, model.policy(x, 9).logits)
    assert calls == ["model"] * 2
    fine_tuned = moved(chain)
    assert (fine_tuned.policy(x, 9).logits - chain.policy(x, 9).logits).abs().max() > 0.01
    assert calls.count("model") == 4 and "adapter" in calls
    assert not any(parameter.requires_grad for parameter in lm.parameters())


@KINDS
def test_states_that_are_alike_go_through_the_language_model_once(kind):
    model = moved(chain_of(kind))
    x = masked_rows(SPACE)
    seen = []
    model.backbone.shared.module.lm.register_forward_hook(lambda *given: seen.append(len(given[2].logits)))
    logits = model._logits(x[[3, 0, 3, 1, 0, 0]])
    assert seen == [3]
    assert torch.allclose(logits, model._logits(x)[[3, 0, 3, 1, 0, 0]], atol=1e-5)
    model.trainable.requires_grad_(True)
    weights = torch.randn(4, 9, 20, generator=torch.Generator().manual_seed(0))
    (model._logits(x[[2, 2, 1, 2]]) * weights).sum().backward()
    together = [value.grad.clone() for value in model.trainable.parameters()]
    model.trainable.zero_grad()
    for row, own in zip([2, 2, 1, 2], weights, strict=True):
        (model._logits(x[[row]]) * own).sum().backward()
    for one, value in zip(together, model.trainable.parameters(), strict=True):
        assert torch.allclose(one, value.grad, rtol=1e-3, atol=1e-4)


def test_the_weights_of_a_given_model_stay_as_they_are_and_are_not_copied():
    lm, tokenizer = tiny_bert()
    names = [name for name, _ in lm.named_modules()]
    before = copy.deepcopy(lm.state_dict())
    chain = MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer)
    problem = problem_on(chain, lambda point: point[..., 0].mean(dim=-1), batch_size=8)
    solver = TrajectoryBalanceSolver().setup(problem)
    for i in range(3):
        solver.update(i)
    best = copy.deepcopy(problem.model.trainable.state_dict())
    assert [name for name, _ in lm.named_modules()] == names
    assert all(torch.equal(value, before[name]) for name, value in lm.state_dict().items())
    assert all(parameter.requires_grad for parameter in lm.parameters())
    assert any(not torch.equal(value, chain.trainable.state_dict()[name]) for name, value in best.items())
    own = {value.data_ptr() for value in lm.state_dict().values()}
    shared = {
        p.data_ptr() for name, p in shared_parts(problem.model)[0].module.named_parameters() if "lora" not in name
    }
    assert shared <= own


def test_pretrained_fine_tuned_and_best_weights_need_little_more_memory_than_the_language_model():
    lm, tokenizer = tiny_bert(hidden_size=192, intermediate_size=768)
    chain = MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, lora_rank=4)
    problem = problem_on(chain, lambda point: point[..., 0].mean(dim=-1), batch_size=4)
    DirectSolver().setup(problem).update(0)
    best = copy.deepcopy(problem.model.trainable.state_dict())
    tensors = [*lm.state_dict().values(), *best.values()]
    for model in (chain, problem.model):
        for part in (model, *(shared.module for shared in shared_parts(model))):
            tensors += [*part.parameters(), *part.buffers()]
    by_place = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    backbone = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in lm.state_dict().values()}
    assert sum(by_place.values()) < 1.2 * sum(backbone.values())


TOY = SequenceSpace("ACDE", 4)


def all_states():
    return one_hot(masked_states(4, 4), 5)[..., :4].float()


@KINDS
def test_log_probabilities_are_those_of_an_enumeration_of_orders(kind):
    """One letter at a time, over all orders, by the language model's own logits."""
    lm, tokenizer = MODELS[kind]("ACDE")
    chain = MaskedDiffusion.from_masked_lm(lm, TOY, tokenizer=tokenizer)
    table = logits_by_numbers(lm, tokenizer, TOY, all_states()).double().log_softmax(dim=-1)
    words = torch.tensor(list(itertools.product(range(4), repeat=4)))
    strides = torch.tensor([125, 25, 5, 1])
    law = torch.zeros(len(words), dtype=torch.float64)
    for order in itertools.permutations(range(4)):
        path, state = torch.zeros(len(words), dtype=torch.float64), torch.full_like(words, 4)
        for position in order:
            letters = table[(state * strides).sum(dim=1), position]
            path += letters.gather(1, words[:, position, None])[:, 0]
            state[:, position] = words[:, position]
        law += path.exp() / 24
    assert float(law.sum()) == pytest.approx(1)
    log_probs = sequence_law(chain.letter_log_probs(all_states()))
    assert torch.allclose(log_probs.exp(), law, atol=1e-6)
    # And by the policies, along the order of the last permutation: the letters, and one order of 24.
    states = [torch.where(torch.arange(4) >= 4 - k, words, 4) for k in range(5)]
    points = [one_hot(state, 5)[..., :4].float() for state in states]
    total = sum(chain.policy(points[k], 4 - k).log_prob(points[k + 1]).double() for k in range(4))
    assert torch.allclose(total, path - torch.tensor(24.0).log(), atol=1e-4)


def test_trajectory_balance_closes_the_gap_of_a_language_model():
    """The masked gap of theory, in nats: it falls toward what letters alone can reach, and never below."""
    pair = SequenceSpace("ACDE", 2)
    lm, tokenizer = tiny_esm("ACDE", num_hidden_layers=1)
    chain = MaskedDiffusion.from_masked_lm(lm, pair, tokenizer=tokenizer)
    reward = torch.randn(16, generator=torch.Generator().manual_seed(0)).double()
    states = one_hot(masked_states(2, 4), 5)[..., :4].float()
    table = chain.letter_log_probs(states)
    floor = float(position_floor(table, reward, 1.0))
    assert float(masked_gap(best_letters(table, reward, 1.0)[0], table, reward, 1.0)) == pytest.approx(floor, abs=1e-6)

    def of_points(point):
        return reward[(point.argmax(dim=-1) * torch.tensor([4, 1])).sum(dim=1)].float()

    problem = problem_on(chain, of_points, batch_size=64, learning_rate=0.02)
    solver = TrajectoryBalanceSolver().setup(problem)
    for i in range(20):
        solver.update(i)
    before = float(masked_gap(table, table, reward, 1.0))
    after = float(masked_gap(problem.model.letter_log_probs(states), table, reward, 1.0))
    assert floor <= after < 0.7 * before


@KINDS
def test_an_adapter_goes_through_peft_and_back_to_equal_logits(kind, tmp_path):
    import peft
    from transformers import AutoModelForMaskedLM

    lm, tokenizer = MODELS[kind]()
    lm.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    model = moved(MaskedDiffusion.from_masked_lm(tmp_path / "lm", SPACE)).freeze()
    model.save_pretrained(tmp_path / "model")
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path / "lm")
    adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "model").eval()
    x = masked_rows(SPACE)
    expected = logits_by_numbers(adapted, tokenizer, SPACE, x)
    assert torch.allclose(model._logits(x), expected, atol=1e-5)
    assert (expected - logits_by_numbers(lm, tokenizer, SPACE, x)).abs().max() > 0.01
    loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded._logits(x), model._logits(x)) and digest(loaded) == digest(model)
    assert loaded.backbone is model.backbone
    sizes = sum(path.stat().st_size for path in (tmp_path / "model").iterdir())
    assert not (tmp_path / "model" / "lm").exists() and sizes < 200_000


def test_a_save_replaces_an_earlier_one_and_leaves_other_files_alone(tmp_path):
    chain = chain_of("bert")
    chain.save_pretrained(tmp_path / "model")
    moved(chain).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        chain.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").unlink()
    remove_saved(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_saved_chain_finds_its_language_model_by_place_and_weights(tmp_path):
    lm, tokenizer = tiny_esm()
    for part in (lm, tokenizer):
        part.save_pretrained(tmp_path / "lm")
    chain = MaskedDiffusion.from_masked_lm(tmp_path / "lm", SPACE)
    moved(chain).save_pretrained(tmp_path / "model")
    known = digest(chain)
    del chain
    loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    del loaded
    random_weights(lm, seed=5).save_pretrained(tmp_path / "lm")
    with pytest.raises(CheckpointError, match="has other weights"):
        DiffusionModel.from_pretrained(tmp_path / "model")
    (tmp_path / "lm").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"is not found.*from_masked_lm\(directory"):
        DiffusionModel.from_pretrained(tmp_path / "model")
    random_weights(lm, seed=0).save_pretrained(tmp_path / "elsewhere")
    again = MaskedDiffusion.from_masked_lm(tmp_path / "elsewhere", SPACE)
    assert digest(again) == known
    assert DiffusionModel.from_pretrained(tmp_path / "model").backbone is again.backbone


def test_fit_adapts_to_sequences_over_all_shares_of_masks(capsys):
    """Domain adaptation: the adapter learns a family that the random model knows nothing of."""
    chain = chain_of("esm", lora_rank=16)
    generator = torch.Generator().manual_seed(0)
    rows = ["".join("AW"[i] for i in torch.randint(2, (9,), generator=generator).tolist()) for _ in range(200)]
    shares = (0.15, 0.5, 1.0)
    before = [chain.cross_entropy(rows[:50], share) for share in shares]
    adapted = copy.deepcopy(chain).fit(
        rows[50:], max_iter=60, batch_size=32, learning_rate=0.02, random_state=0, verbose=1
    )
    after = [adapted.cross_entropy(rows[:50], share) for share in shares]
    assert all(new < 0.7 * old for new, old in zip(after, before, strict=True))
    out = capsys.readouterr().out
    assert "nats a letter of X" in out and "uniform letters have 3" in out and "100% masked" in out
    assert chain.cross_entropy(rows[:50], 1.0) == before[-1] and adapted.frozen
    with pytest.raises(IncompatibleModelError, match="trained already"):
        adapted.fit(rows)


def test_held_letters_are_not_masked_in_the_cross_entropy():
    lm, tokenizer = tiny_bert()
    space = SequenceSpace("protein", template="ACDEFGH__")
    chain = MaskedDiffusion.from_masked_lm(lm, space, tokenizer=tokenizer)
    x = one_hot(torch.tensor([[*range(9)]]), 20).float()
    x[0, 7:] = 0
    log_probs = logits_by_numbers(lm, tokenizer, space, x).log_softmax(dim=-1)[0]
    expected = -(log_probs[7, 7] + log_probs[8, 8]) / 2
    row = "".join(PROTEIN[:9])
    assert chain.cross_entropy([row], 1.0) == pytest.approx(float(expected), abs=1e-5)


def test_a_finetuner_takes_a_chain_of_a_language_model(tmp_path):
    lm, tokenizer = tiny_bert(num_hidden_layers=1)
    chain = MaskedDiffusion.from_masked_lm(lm, SequenceSpace("protein", 4), tokenizer=tokenizer)
    X = chain.sample(100, random_state=0)
    y = [row.count("A") - row.count("W") for row in X]
    settings = {"max_iter": 10, "batch_size": 32, "learning_rate": 0.02, "solver": "trajectory_balance"}
    settings["reward"] = GPBonusReward(torch.nn.Flatten())
    finetuner = ConservativeDiffusionFinetuner(chain, alpha=0.2, random_state=0, **settings).fit(X, y)
    assert finetuner.model_.backbone is chain.backbone and finetuner.pretrained_ is chain
    kl = finetuner.history_["kl"]
    assert kl[0] == 0 and kl[-1] > 0
    finetuner.model_.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert DiffusionModel.from_pretrained(tmp_path / "model").sample(5, 0) == finetuner.sample(5, 0)


def test_tokenizers_with_and_without_blanks_and_special_tokens():
    letters = "ACGT"
    for spaces in (True, False):
        tokens = letter_tokens(tokenizer_of(letters, spaces=spaces), letters)
        assert (tokens.letters, tokens.mask, tokens.before, tokens.after) == ([5, 6, 7, 8], 4, [2], [3])
    bare = letter_tokens(tokenizer_of(letters, before=(), after=()), letters)
    assert (bare.before, bare.after) == ([], [])
    two = letter_tokens(tokenizer_of(letters, before=("[CLS]", "[SEP]"), after=()), letters)
    assert (two.before, two.after) == ([2, 3], [])
    small = letter_tokens(tokenizer_of(LOWERCASE, lowercase=True), letters)
    assert small.letters == [5 + LOWERCASE.index(letter) for letter in "acgt"]


def test_tokenizers_that_do_not_write_letter_by_letter_are_refused():
    with pytest.raises(IncompatibleModelError, match="several letters, such as 'AAA'.*k-mer"):
        letter_tokens(kmers(), "ACGT")
    with pytest.raises(IncompatibleModelError, match="no token of its own for 'U'"):
        letter_tokens(tokenizer_of("ACG"), "ACGU")
    without_mask = tokenizer_of("ACGT")
    without_mask.mask_token = None
    with pytest.raises(IncompatibleModelError, match="no mask token"):
        letter_tokens(without_mask, "ACGT")


def test_places_where_there_is_no_masked_language_model_are_refused(tmp_path):
    lm, tokenizer = tiny_bert()
    with pytest.raises(CheckpointError, match="is not a directory.*hf://owner/name"):
        MaskedDiffusion.from_masked_lm("facebook/esm2_t6_8M_UR50D", SPACE)
    with pytest.raises(InvalidParameterError, match="hf://owner/name"):
        MaskedDiffusion.from_masked_lm("hf://esm2", SPACE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        MaskedDiffusion.from_masked_lm(tmp_path / "empty", SPACE)
    lm.save_pretrained(tmp_path / "no_tokenizer")
    with pytest.raises(CheckpointError, match="has no tokenizer; pass"):
        MaskedDiffusion.from_masked_lm(tmp_path / "no_tokenizer", SPACE)
    lm.bert.save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    with pytest.raises(IncompatibleModelError, match=r"has no weights for cls\."):
        MaskedDiffusion.from_masked_lm(tmp_path / "headless", SPACE)
    config = json.loads((tmp_path / "no_tokenizer" / "config.json").read_text())
    (tmp_path / "no_tokenizer" / "config.json").write_text(json.dumps(config | {"model_type": "caduceus"}))
    with pytest.raises(CheckpointError, match="could not be loaded"):
        MaskedDiffusion.from_masked_lm(tmp_path / "no_tokenizer", SPACE)
    with pytest.raises(IncompatibleModelError, match="needs its tokenizer"):
        MaskedDiffusion.from_masked_lm(lm, SPACE)


def test_sequences_and_settings_that_do_not_fit_are_refused():
    lm, tokenizer = tiny_bert()
    with pytest.raises(IncompatibleModelError, match="at most 64 tokens, and 63 letters are 65"):
        MaskedDiffusion.from_masked_lm(lm, SequenceSpace("protein", 63), tokenizer=tokenizer)
    for wrong in (0, 2.5, True):
        with pytest.raises(InvalidParameterError, match="lora_rank"):
            MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, lora_rank=wrong)
    with pytest.raises(IncompatibleModelError, match=r"target_modules.*bert\.encoder"):
        MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, target_modules=["q_proj"])
    for wrong in ("query", []):
        with pytest.raises(InvalidParameterError, match="target_modules must be a list"):
            MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, target_modules=wrong)
    with pytest.raises(IncompatibleModelError, match="no linear layers"):
        MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, target_modules=["word_embeddings"])
    for wrong in (0, "x", float("nan")):
        with pytest.raises(InvalidParameterError, match="lora_alpha"):
            MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, lora_alpha=wrong)
    several = SequenceSpace("protein", length=(6, 9), padding="right")
    with pytest.raises(IncompatibleModelError, match="sequences of one length.*6 to 9"):
        MaskedDiffusion.from_masked_lm(lm, several, tokenizer=tokenizer)
    few = MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, target_modules=["query"], lora_rank=2)
    assert {name.split("/")[-4] for name in few.trainable.own} == {"query"}


def test_models_of_another_kind_and_tokenizers_of_other_models_are_refused():
    lm, tokenizer = tiny_bert()
    for other in (lm.bert, torch.nn.Linear(3, 3)):
        with pytest.raises(IncompatibleModelError, match=f"{type(other).__name__} is no masked language model"):
            MaskedDiffusion.from_masked_lm(other, SPACE, tokenizer=tokenizer)
    small, _ = tiny_bert("ACGT")
    with pytest.raises(IncompatibleModelError, match="token of number 24, and the language model knows 9"):
        MaskedDiffusion.from_masked_lm(small, SPACE, tokenizer=tokenizer)


def test_nucleotides_on_a_model_of_proteins_are_warned_of():
    lm, tokenizer = tiny_bert()
    with pytest.warns(UserWarning, match="letters ACGT are those of nucleotides"):
        MaskedDiffusion.from_masked_lm(lm, SequenceSpace("DNA", 9), tokenizer=tokenizer)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan"), "half", True])
def test_shares_of_masked_letters_out_of_range_are_refused(share):
    with pytest.raises(InvalidParameterError, match="share_masked must be a number above 0 and at most 1"):
        chain_of("bert").cross_entropy(["ACDEFGHIK"], share)


def test_a_model_that_reads_embeddings_otherwise_is_refused():
    lm, tokenizer = tiny_bert()
    lm.bert.embeddings.word_embeddings.register_forward_hook(lambda module, args, out: out * args[0].ndim)
    with pytest.raises(IncompatibleModelError, match="gives other logits for embeddings"):
        MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer)


def test_without_transformers_or_peft_the_extra_is_named(monkeypatch):
    lm, tokenizer = tiny_bert()
    for name in ("peft", "transformers"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(MissingExtraError, match=r"braidkit\[lm\]"):
                MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer)


def test_differently_adapted_chains_of_one_model_have_different_digests():
    lm, tokenizer = tiny_bert()
    made = [
        MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, **settings)
        for settings in ({}, {}, {"lora_rank": 4}, {"n_steps": 3})
    ]
    digests = [digest(chain) for chain in made]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    assert digest(moved(made[0])) not in digests
    assert made[0].backbone is made[1].backbone


@KINDS
def test_attention_of_short_sequences_is_plain_products_and_of_long_ones_fused(kind, tmp_path, monkeypatch):
    """The logits are the same, and a model that the user loaded keeps its own way."""
    monkeypatch.setattr(pretrained_lm, "MAX_PLAIN_LENGTH", 9)
    lm, tokenizer = MODELS[kind]()
    for part in (lm, tokenizer):
        part.save_pretrained(tmp_path)
    own = lm.config._attn_implementation
    assert own != "eager"
    for length, expected in ((9, "eager"), (10, own)):
        space = SequenceSpace("protein", length)
        chain = MaskedDiffusion.from_masked_lm(tmp_path, space, lora_rank=length)
        assert chain.backbone.shared.module.lm.config._attn_implementation == expected
        x = masked_rows(space)
        torch.testing.assert_close(
            chain.letter_log_probs(x),
            logits_by_numbers(lm, tokenizer, space, x).log_softmax(dim=-1),
            atol=1e-3,
            rtol=1e-3,
        )
    given = MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, lora_rank=5)
    assert given.backbone.shared.module.lm.config._attn_implementation == lm.config._attn_implementation == own


def test_a_language_model_has_few_steps_by_default_and_one_a_position_under_limits():
    lm, tokenizer = tiny_bert()
    for length, expected in ((3, 3), (9, 5), (20, 5), (21, 6), (40, 10)):
        space = SequenceSpace("protein", length)
        assert MaskedDiffusion.from_masked_lm(lm, space, tokenizer=tokenizer).n_steps == expected
    limited = SequenceSpace("protein", 9, limits=Limits(forbidden=["WW"]))
    assert MaskedDiffusion.from_masked_lm(lm, limited, tokenizer=tokenizer).n_steps == 9
    assert MaskedDiffusion.from_masked_lm(lm, SPACE, tokenizer=tokenizer, n_steps=9).n_steps == 9
