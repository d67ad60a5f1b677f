"""Simplex chains whose network is exact, or random."""

import torch
from torch import Tensor, nn

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.diffusion.simplex import EPS
from braidkit.kernels.simplex import sum_after
from tests.worlds import IndependentLetters

DNA = SequenceSpace("DNA", length=5)
DNA_STICKS = (5, 3)


class ExactScore(nn.Module):
    """The exact score in x of independent letters, for head "score"."""

    def __init__(self, model: SimplexDiffusion, probabilities: Tensor) -> None:
        super().__init__()
        self.law, self.times, self.scale = model.law, torch.tensor(model.times), model.score_scale
        self.log_prior = probabilities.log()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        number = int((self.times - t).abs().argmin())
        v = (x[..., :-1] / x.flip(-1).cumsum(-1).flip(-1)[..., :-1]).clamp(EPS, 1 - EPS)
        evidence = self.law.evidence(v, number)
        letters = (evidence.log_likelihoods() + self.log_prior).softmax(dim=-1)
        one, zero = letters[..., :-1] * evidence.lineages_one, sum_after(letters) * evidence.lineages_zero
        # Solve (1 - v_i) y_i - v_i sum_{j>i} y_j = (1 - v_i) one_i - v_i zero_i from the last stick to the first.
        y, after = [torch.zeros_like(x[..., 0])], torch.zeros_like(x[..., 0])
        for i in reversed(range(v.shape[-1])):
            y.insert(0, one[..., i] + v[..., i] * (after - zero[..., i]) / (1 - v[..., i]))
            after = after + y[0]
        return torch.stack(y, dim=-1) / x.clamp(min=1e-12) / self.scale[number]


def model_of(
    head: str, probabilities: Tensor, length: int = 2, n_steps: int = 50, scheme: str = "euler", **arguments
) -> SimplexDiffusion:
    """A frozen chain with the exact network of independent letters."""
    arguments |= {"n_steps": n_steps, "scheme": scheme}
    alphabet = "ACDEFGHIKLMNPQRSTVWY"[: len(probabilities)]
    model = SimplexDiffusion(SequenceSpace(alphabet, length=length), head=head, **arguments)
    model.network = IndependentLetters(probabilities) if head == "letters" else ExactScore(model, probabilities)
    model.kind = "tokens"
    model.freeze()
    return model


def random_model(
    head: str, space: SequenceSpace = DNA, n_steps: int = 10, scheme: str = "euler", **arguments
) -> SimplexDiffusion:
    """A chain with random weights."""
    torch.manual_seed(0)
    model = SimplexDiffusion(space, head=head, n_steps=n_steps, scheme=scheme, **arguments)
    model.network = model._build_network()
    return model
