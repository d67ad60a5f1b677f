"""LetterChain: what chains of letters share, a Markov law as the base of their predictions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._pretraining import MIN_HELD_OUT, HeldOutLoss, count_held_out, pretrain
from braidkit.diffusion.markov import MarkovLaw
from braidkit.diffusion.padding import pad_exactly
from braidkit.parameters import check_choice
from braidkit.spaces import Points, SequenceSpace

# Used in place of log 0 = -inf: its exponential is exactly 0, and differences of two of them are finite.
LOG_ZERO = -1e4
# Least standard deviation of a law's log-probability that rarity is counted in, in nats.
LEAST_DEVIATION = 2.0
# Nats a letter by which a network must be better than the Markov law alone, which is exact and twice as fast.
LEAST_GAIN = 0.005


class LetterChain(DiffusionModel):
    """A chain of sequences whose clean letters are predicted by a Markov law and a network on top of it.

    The logits of the letters are the exact log-posterior under the law plus what the network gives, zero at first. The
    network is kept as it was if training it does not help on held-out rows, or if there are too few to tell.

    Attributes
    ----------
    prior : MarkovLaw or None
        The law; None before training, and where there is to be none.
    """

    prior: MarkovLaw | None
    space: SequenceSpace

    def __init__(self, space: SequenceSpace, *, n_steps: int, prior: str | None) -> None:
        super().__init__(space, n_steps=n_steps)
        check_choice("prior", prior, ("markov", None))
        self.prior_kind = prior
        self.prior = None

    def _train(self, x: Points, seed: int, *, validation_fraction: float, verbose: int = 0, **settings: Any) -> None:
        """Fit the Markov law, and then the network to what it misses."""
        settings |= {"validation_fraction": validation_fraction, "verbose": verbose}
        if self.prior_kind is None:
            pretrain(self, x, seed, **settings)
            return
        law, by_order = fit_prior(x, self.space, seed)
        self.prior = law.to(x.device)
        too_few = validation_fraction > 0 and count_held_out(len(x), validation_fraction) < MIN_HELD_OUT
        loss = None if too_few else pretrain(self, x, seed, least_gain=LEAST_GAIN, **settings)
        if verbose:
            tqdm.write(describe_prior(law, by_order, loss))

    def hold_logs(self, logs: Tensor) -> Tensor:
        """Logits, or log-likelihoods, (n, L, K) by which the letters that the space holds are certain."""
        if self.space.template is None:
            return logs
        return torch.where(self.space.hold(torch.ones_like(logs)) == 0, LOG_ZERO, logs)

    def log_held(self, n: int) -> Tensor:
        """Log-likelihoods (n, L, K), float64, of the letters that the space holds."""
        return self.hold_logs(torch.zeros(n, *self.space.shape, dtype=torch.float64, device=self.device))

    @torch.no_grad()
    def rarity(self, x: Tensor) -> Tensor:
        """Rarity of designs compared with the Markov law's own draws.

        Parameters
        ----------
        x : Tensor of shape (n, length, n_letters)
            One-hot designs, that have the letters which the space holds.

        Returns
        -------
        rarity : Tensor of shape (n,), float64
            By how many standard deviations of the draws' log-probability, of 2 nats at least, a design's lies below
            their mean; infinite for designs that the law makes impossible, and 0 where there is no law.
        """
        self.space.check_points(x)
        if self.prior is None:
            return super().rarity(x)
        mean, deviation = self.prior.log_prob_moments(self.log_held(1)[0])
        return (mean - self.prior.log_prob(x.argmax(dim=-1))) / max(deviation, LEAST_DEVIATION)

    def to_config(self) -> dict[str, Any]:
        return super().to_config() | {"prior_order": 0 if self.prior is None else self.prior.order}

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> LetterChain:
        model = super()._from_config(config)
        assert isinstance(model, LetterChain)
        if config["prior_order"]:
            model.prior = MarkovLaw(model.space.length, model.space.n_letters, config["prior_order"])
        return model


def fit_prior(x: Points, space: SequenceSpace, seed: int) -> tuple[MarkovLaw, dict[int, float]]:
    """The law of designs (on the CPU), with the padding of their space, and held-out nats a letter by order."""
    tokens = read_tokens(x)
    law, by_order = MarkovLaw.fit(tokens, space.n_letters, random_state=seed)
    pad_exactly(law, tokens, space.letters)
    return law, by_order


def read_tokens(x: Points) -> Tensor:
    """Letters (n, L) by number, on the CPU."""
    return torch.cat([points.argmax(dim=-1).cpu() for points in x.split(4096)])


def describe_prior(law: MarkovLaw, by_order: dict[int, float], loss: HeldOutLoss | None) -> str:
    """One line: the law's order, whether the network helps, and held-out nats a letter."""
    independent, best = by_order[0], min(by_order.values())
    what = f"Markov order {law.order}" if best < independent else "independent letters"
    nats = f"{best:.3g} nats a letter on held-out designs, {independent - best:.2g} below independent letters"
    if loss is None:
        return f"pretrained: {what}; {nats}"
    if not loss.after < loss.before:
        return f"pretrained: {what}; {nats}; a network does not help"
    return f"pretrained: {what} + network; {nats}, and {loss.before - loss.after:.2g} less with the network"


def without_zeros(log_q: Tensor) -> Tensor:
    """Log-probabilities with LOG_ZERO in place of minus infinity."""
    return log_q.clamp(min=LOG_ZERO)
