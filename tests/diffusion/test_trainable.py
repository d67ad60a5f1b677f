"""What fine-tuning changes of a chain, and what all copies of it share."""

import copy

import pytest
import torch

from braidkit import ConservativeDiffusionFinetuner, SequenceSpace, SimplexDiffusion
from braidkit.diffusion import DiffusionModel, GuidedDiffusion, MeasurementGuide
from braidkit.finetuning import DirectSolver, PolicyGradientSolver, TrajectoryBalanceSolver, rollout, sample_with_kl
from braidkit.networks import shared_parts
from braidkit.persistence import digest
from tests.worlds import AdaptedLetters, normal_chain, problem_on, untrained

DNA = SequenceSpace("DNA", length=6)


def adapted(**settings):
    chain = untrained(AdaptedLetters(DNA, **settings))
    chain.kind = "strings"
    return chain


def storages(*parts):
    """Bytes of the different storages of models, with what they share, and of mappings of tensors."""
    found = {}
    for part in parts:
        modules = [part, *(shared.module for shared in shared_parts(part))] if isinstance(part, torch.nn.Module) else []
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        for tensor in tensors if modules else part.values():
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def share_of_g(x):
    return x[..., 2].mean(dim=-1)


def test_an_adapted_chain_of_26_million_parameters_needs_little_more_memory_than_its_backbone():
    """Pretrained, fine-tuned and best weights together, after updates: below 1.2 times the backbone."""
    pretrained = adapted(width=1024, depth=25)
    backbone = storages(pretrained.backbone.module.state_dict())
    assert backbone > 26e6 * 4
    problem = problem_on(pretrained, share_of_g, batch_size=2)
    solver = DirectSolver(1).setup(problem)
    solver.update(0)
    best = copy.deepcopy(problem.model.trainable.state_dict())
    fine_tuned = problem.model.freeze()
    assert storages(pretrained, fine_tuned, best) < 1.2 * backbone
    assert len(solver.parameters) == 2 * 25
    for name, before in pretrained.trainable.state_dict().items():
        assert not torch.equal(before, best[name]) or name.endswith("down")


def test_the_reference_is_the_same_backbone_without_the_adapter():
    pretrained = adapted()
    model = pretrained.trainable_copy()
    assert model.trainable.shared is pretrained.trainable.shared
    x = model.noised(DNA.encode(["ACGTAC", "GGGTAC"]), 3, torch.Generator().manual_seed(0))
    assert torch.equal(pretrained.policy(x, 3).logits, pretrained.backbone.module(x))
    with torch.no_grad():
        model.trainable.own["layers/0/up"] += 0.5
    noise = model.draw_noise(8, torch.Generator().manual_seed(0))
    assert (rollout(model, pretrained, noise).kl > 0).all()
    assert torch.equal(pretrained.policy(x, 3).logits, pretrained.backbone.module(x))


@pytest.mark.parametrize("solver", [DirectSolver, PolicyGradientSolver, TrajectoryBalanceSolver])
def test_every_solver_trains_the_adapter_alone(solver):
    pretrained = adapted()
    before = copy.deepcopy(pretrained.backbone.module.state_dict())
    problem = problem_on(pretrained, share_of_g, batch_size=32, alpha=0.1)
    running = solver().setup(problem)
    for i in range(20):
        running.update(i)
    noise = pretrained.draw_noise(64, torch.Generator().manual_seed(0))
    gain = share_of_g(problem.model.sample_points(noise)) - share_of_g(pretrained.sample_points(noise))
    assert gain.mean() > 0.05
    assert all(torch.equal(value, before[name]) for name, value in pretrained.backbone.module.state_dict().items())


def test_an_adapted_chain_is_fine_tuned_saved_and_resumed(tmp_path):
    """What is saved of it is the adapter alone."""
    pretrained = adapted()
    X = pretrained.sample(76, random_state=0)
    y = [row.count("G") for row in X]

    def finetuner(max_iter, directory):
        settings = {"max_iter": max_iter, "batch_size": 16, "n_iter_no_change": 100, "random_state": 0}
        return ConservativeDiffusionFinetuner(pretrained, alpha=0.1, checkpoint_dir=directory, **settings)

    whole = finetuner(10, tmp_path / "whole").fit(X, y)
    finetuner(5, tmp_path / "parts").fit(X, y)
    resumed = finetuner(10, tmp_path / "parts").fit(X, y)
    assert resumed.sample(20, random_state=0) == whole.sample(20, random_state=0)
    whole.model_.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 2.5 * storages(
        whole.model_.trainable.state_dict()
    )
    loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    assert loaded.sample(20, random_state=0) == whole.sample(20, random_state=0)
    noise = loaded.draw_noise(4, torch.Generator().manual_seed(0))
    assert torch.equal(sample_with_kl(loaded, pretrained, noise).kl, sample_with_kl(whole.model_, pretrained, noise).kl)


def test_chains_of_different_backbones_settings_or_weights_have_different_digests():
    chain = adapted()
    assert digest(chain) == digest(adapted())
    moved = chain.trainable_copy()
    with torch.no_grad():
        moved.trainable.own["layers/0/up"] += 0.5
    other = adapted(seed=1)
    with torch.no_grad():  # alike in all that is trained
        other.trainable.load_state_dict(chain.trainable.state_dict())
    renamed = adapted(n_steps=3)
    digests = {digest(model) for model in (chain, moved, other, renamed)}
    assert len(digests) == 4
    unlike = adapted()
    with torch.no_grad():
        unlike.backbone.module.last.bias[0] += 1e-3
    assert digest(unlike) != digest(chain)


def test_weights_in_bfloat16_have_a_digest():
    chain = untrained(SimplexDiffusion(DNA))
    narrow = copy.deepcopy(chain).to(torch.bfloat16)
    assert digest(narrow) == digest(copy.deepcopy(chain).to(torch.bfloat16))
    assert digest(narrow) != digest(chain)
    assert digest(torch.ones(2, dtype=torch.bfloat16)) != digest(2 * torch.ones(2, dtype=torch.bfloat16))


def test_a_fine_tuned_model_reads_out_on_the_pretrained_weights_themselves():
    """Of networks, memory holds the pretrained and the fine-tuned one; moving either leaves the other where it was."""
    pretrained = untrained(SimplexDiffusion(DNA))
    network = storages(pretrained.network)
    model = pretrained.trainable_copy()
    assert storages(pretrained, model) - storages(pretrained) <= 1.01 * network
    model.double()
    assert next(pretrained.parameters()).dtype == torch.float32
    again = pretrained.trainable_copy().trainable_copy()
    assert all(not part.requires_grad for part in again.decoder.parameters())
    assert all(part.requires_grad for part in again.trainable.parameters())
    with torch.no_grad():
        again.trainable.first.weight += 1
    assert not torch.equal(again.decoder.first.weight, again.trainable.first.weight)


def test_a_guided_chain_shares_its_guide_with_fine_tuned_copies():
    guide = MeasurementGuide(normal_chain().space, goal=1.0, tail=True)
    pretrained = GuidedDiffusion(normal_chain(), guide)
    model = pretrained.trainable_copy()
    assert storages(pretrained, model) == storages(pretrained) + storages(model.trainable)
    assert digest(pretrained) != digest(pretrained.chain)
