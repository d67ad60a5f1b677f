"""How far adjoint matching's update is from the gradient of the objective, away from the pretrained weights.

    PYTHONPATH=. python benchmarks/lean_adjoint.py

Each weight is moved by a normal number of a given deviation; the same 1,024 trajectories serve both. "off" is the norm
of the difference over that of the gradient, "cosine" their cosine, "KL" how far the chain has moved, in nats.
At the pretrained weights the two are the same, path by path.
"""

from __future__ import annotations

import torch
from torch import Tensor

from braidkit import GaussianDiffusion, SequenceSpace, SimplexDiffusion
from braidkit.diffusion import DiffusionModel
from braidkit.finetuning import AdjointMatchingSolver, DirectSolver, Problem, Solver, sample_with_kl


def moved_copy(pretrained: DiffusionModel, deviation: float) -> DiffusionModel:
    """A trainable copy with normal numbers added to its weights."""
    model, generator = pretrained.trainable_copy(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in model.trainable.parameters():
            part += deviation * torch.randn(part.shape, generator=generator)
    return model


def gradient(solver: Solver, model: DiffusionModel, pretrained: DiffusionModel) -> Tensor:
    """What a solver's first update would descend."""
    solver.setup(Problem(model, pretrained, slope, 0.5, 1024, 1e-3, 1e9, seed=0))
    solver.step = lambda: None  # gradients are read, not followed
    solver.update(0)
    return torch.cat([p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in solver.parameters])


def slope(x: Tensor) -> Tensor:
    """A reward that is curved in each entry."""
    return x.flatten(1)[:, ::2].sum(dim=1) - 0.2 * x.flatten(1).square().sum(dim=1)


def main() -> None:
    torch.set_num_threads(1)
    sequences = SimplexDiffusion(SequenceSpace("DNA", 8), n_steps=10)
    rng = torch.Generator().manual_seed(0)
    letters = torch.randint(4, (400, 8), generator=rng).tolist()
    sequences.fit(["".join("ACGT"[i] for i in row) for row in letters], max_iter=100, random_state=0)
    chains = {"vectors": GaussianDiffusion.standard_normal(4, n_steps=20, n_hidden=32), "bridges": sequences}
    print(f"{'chain':<10}{'moved by':>10}{'off':>9}{'cosine':>8}{'KL':>8}")
    for name, chain in chains.items():
        for deviation in (0.0, 0.1, 0.3):
            model = moved_copy(chain, deviation)
            ours, exact = (
                gradient(solver, model, chain) for solver in (AdjointMatchingSolver(), DirectSolver(truncation=1000))
            )
            off = float((ours - exact).norm() / exact.norm())
            cosine = float(torch.cosine_similarity(ours, exact, dim=0))
            kl = float(sample_with_kl(model, chain, chain.draw_noise(256, torch.Generator().manual_seed(2))).kl.mean())
            print(f"{name:<10}{deviation:>10.1f}{100 * off:>8.1f}%{cosine:>8.3f}{kl:>8.2f}")


if __name__ == "__main__":
    main()
