"""Where should the simplex chain end, and through what should the gradient of its designs flow?

One position of four independent letters, whose exact network is known; theta is added to the logit of one letter. Each
line ends the chain at another time and gives the distance of the designs' law to the truth, the derivative of the
letter's frequency by theta (by differences), and for two readouts its pathwise estimate with the signal-to-noise ratio
of one trajectory: the distribution that the network predicts, and the linear estimate that SimplexDiffusion uses.

    python benchmarks/simplex_gradients.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from braidkit.diffusion.simplex import SimplexDiffusion
from braidkit.spaces import SequenceSpace

PRIOR = torch.tensor([0.4, 0.3, 0.2, 0.1])
LETTER = 2


class Tilted(nn.Module):
    """The exact network of independent letters, with theta (n, 1, 1) added to the logit of one of them."""

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = theta

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return (PRIOR.log() + self.theta * torch.eye(4)[LETTER]).expand_as(x)


def run(model: SimplexDiffusion, theta: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Readouts (n, 4) of a tilted chain, by the prediction itself and by `SimplexDiffusion.readout`."""
    n = len(theta)
    noise = model.draw_noise(n, torch.Generator().manual_seed(seed))
    model.network, model.decoder = Tilted(theta), Tilted(torch.zeros(n, 1, 1))
    state = model.initial(n).rsample(noise[:, 0])
    for t in range(model.n_steps, 0, -1):
        state = model.policy(state, t).rsample(noise[:, t])
    likelihoods = model.law.evidence(model._sticks(state), 0).log_likelihoods()
    return (likelihoods + PRIOR.log()).softmax(dim=-1)[:, 0], model.readout(state)[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--n-law", type=int, default=20_000)
    parser.add_argument("--min-times", type=float, nargs="+", default=[1 / 400, 0.1, 0.2, 0.4, 0.6])
    args = parser.parse_args()
    print("min_time  law error  derivative        prediction: mean, SNR        linear estimate: mean, SNR")
    for min_time in args.min_times:
        model = SimplexDiffusion(SequenceSpace("DNA", length=1), min_time=min_time, scheme="euler")
        with torch.no_grad():
            law, up, down = (
                run(model, torch.full((args.n_law, 1, 1), theta), 1)[0].argmax(dim=-1) for theta in (0.0, 0.25, -0.25)
            )
        error = (torch.bincount(law, minlength=4) / args.n_law - PRIOR).abs().sum() / 2
        difference = ((up == LETTER).float() - (down == LETTER).float()) / 0.5
        line = f"{min_time:8.4f}  {error:9.4f}  {difference.mean():.4f} +- {difference.std() / args.n_law**0.5:.4f}"
        theta = torch.zeros(args.n, 1, 1, requires_grad=True)
        for readout in run(model, theta, 2):
            (gradient,) = torch.autograd.grad(readout[:, LETTER].sum(), theta, retain_graph=True)
            mean, deviation = gradient.mean(), gradient.std()
            snr = mean / deviation if deviation > 0 else torch.zeros(())
            line += f"   {mean:8.4f} +- {deviation / args.n**0.5:.4f}, {snr:6.3f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
