"""EnumeratedDiffusion: all designs of a small space at once, each with its probability."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._letters import LOG_ZERO, describe_prior, fit_prior
from braidkit.diffusion._policies import Fixed, Policy
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.spaces import Points, SequenceSpace, Space

MAX_ENUMERATED = 300_000


@dataclass(frozen=True, eq=False)
class OneOf(Policy):
    """One of S designs by its number, the same law for all of n rows.

    Attributes
    ----------
    state : Tensor of shape (n, 1)
        Not read, but for its rows.
    log_probs : Tensor of shape (S,), float64
    """

    state: Tensor
    log_probs: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """Numbers (n, 1) from standard normal noise (n, 1), by the inverse distribution function; no gradient."""
        below = self.log_probs.detach().exp().cumsum(dim=0)
        level = torch.special.ndtr(noise[:, 0].double()) * below[-1]
        return torch.searchsorted(below, level, right=True).clamp(max=len(below) - 1)[:, None].to(self.state.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability (n,) of numbers (n, 1)."""
        return self.log_probs[x[:, 0].long()]

    def kl(self, other: OneOf) -> Tensor:
        """KL (n,), nats: the same for all rows, and exact."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum().expand(len(self.state))


class EnumeratedDiffusion(DiffusionModel):
    """A chain of one step over all designs of a small space, numbered one by one.

    `fit` gives each design its probability under a `MarkovLaw` of the data. Nothing is learned by gradients, and of the
    settings of `fit` only `random_state` and `verbose` have an effect. Fine-tuned by ``solver="exact"`` its law is the
    optimum of equation (6), ``p(x) exp(reward(x) / alpha)`` scaled to sum to one, without an error of sampling or
    training.

    Parameters
    ----------
    space : SequenceSpace
        A space of at most 300,000 designs. Those that its template or its limits leave out do not count.

    References
    ----------
    BRAID (Uehara et al., 2024), equations (6) and (7).

    Examples
    --------
    >>> from braidkit import SequenceSpace
    >>> from braidkit.diffusion import EnumeratedDiffusion
    >>> model = EnumeratedDiffusion(SequenceSpace("DNA", 3)).fit(["ACG", "ACT", "AGT", "CCG"] * 10)
    >>> len(model.sample(2, random_state=0))
    2
    """

    _reads_out_by_network: ClassVar[bool] = False
    space: SequenceSpace

    def __init__(self, space: SequenceSpace) -> None:
        super().__init__(space, n_steps=1)
        SequenceSpace.require(space, "EnumeratedDiffusion")
        if space.n_designs > MAX_ENUMERATED:
            other = "MaskedDiffusion" if space.limited else "SimplexDiffusion"
            raise InvalidParameterError(
                f"EnumeratedDiffusion lists all designs, at most {MAX_ENUMERATED:,}; the space has "
                f"{space.n_designs:,}: use a {other}."
            )
        self.n_designs = int(space.n_designs)

    @functools.cached_property
    def _listed(self) -> Tensor:
        """The letters (n_designs, length) of all designs, uint8, on the CPU."""
        numbers = torch.arange(self.n_designs)
        return torch.cat([self.space.automaton.design(part).byte() for part in numbers.split(65_536)])

    def in_space(self, space: Space) -> DiffusionModel:
        """The law given what a space holds, and its limits, exactly."""
        same = super().in_space(space)  # checks that designs are the same
        if same is self:
            return self
        model = EnumeratedDiffusion(cast(SequenceSpace, space)).to(self.device)
        if not self.space.automaton.meets(model._listed).all():
            raise IncompatibleModelError(f"this EnumeratedDiffusion lists the designs of {self.space}, not of {space}.")
        if self.is_trained:
            model.network = model._build_network().to(self.device)
            known = self.space.automaton.number(model._listed).to(self.device)
            model.table().prior.copy_(self.table().log_probs().detach()[known])
        model.kind = self.kind
        return model.freeze() if self.frozen else model

    @property
    def default_solver(self) -> str:
        return "exact"

    @property
    def state_shape(self) -> tuple[int, ...]:
        """The number of a design."""
        return (1,)

    def initial(self, n: int) -> Fixed:
        """Nothing is known."""
        return Fixed(torch.zeros(n, 1, device=self.device))

    def policy(self, x_t: Tensor, t: int) -> OneOf:
        """The law of all designs."""
        return OneOf(x_t, self.table().log_probs())

    def readout(self, x_0: Tensor) -> Tensor:
        """The designs of the numbers."""
        return self.designs(x_0[:, 0].long())

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        """The mean design, or the design itself once it is drawn."""
        if t == 0:
            return self.readout(x_t)
        law, numbers = self.table().log_probs().exp(), torch.arange(self.n_designs, device=self.device)
        parts = [torch.einsum("s,slk->lk", law[part].float(), self.designs(part)) for part in numbers.split(65_536)]
        return torch.stack(parts).sum(dim=0).expand(len(x_t), -1, -1)

    def designs(self, numbers: Tensor) -> Tensor:
        """One-hot points (n, length, n_letters) of designs by number (n,), the last position fastest."""
        tokens = self._listed[numbers.cpu()].to(numbers.device)
        return nn.functional.one_hot(tokens.long(), self.space.n_letters).float()

    def as_points(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The designs of the numbers; without meaning before one is drawn."""
        return self.readout(x_t)

    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """The number of each design at t = 0, and 0 at t = 1."""
        numbers = self.space.automaton.number(x.argmax(dim=2))
        return (numbers * (1 - torch.as_tensor(t, device=x.device)))[:, None].to(x.dtype)

    def table(self) -> LawOfDesigns:
        """The designs' law."""
        if not isinstance(self.network, LawOfDesigns):
            raise self._not_trained()
        return self.network

    def _build_network(self, n_conditions: int = 0) -> nn.Module:
        if n_conditions:
            raise IncompatibleModelError("an EnumeratedDiffusion takes no condition; pass a SimplexDiffusion.")
        return LawOfDesigns(self.n_designs)

    @torch.no_grad()
    def _train(self, x: Points, seed: int, *, verbose: int = 0, **settings: Any) -> None:
        """Set the law to that of Markov letters."""
        law, by_order = fit_prior(x, self.space, seed)
        law.to(self.device)
        numbers = torch.arange(self.n_designs, device=self.device)
        parts = [law.log_prob(self.designs(part).argmax(dim=2)) for part in numbers.split(65_536)]
        self.table().prior.copy_(torch.cat(parts).clamp(min=LOG_ZERO))
        if verbose:
            tqdm.write(describe_prior(law, by_order, None) + f"; all {self.n_designs:,} designs listed")

    def _config(self) -> dict[str, Any]:
        return {}


class LawOfDesigns(nn.Module):
    """Log-probabilities of designs: those of the prior, and what they are tilted by.

    Parameters
    ----------
    n_designs : int
    """

    prior: Tensor

    def __init__(self, n_designs: int) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(n_designs, dtype=torch.float64))
        self.tilt = nn.Parameter(torch.zeros(n_designs, dtype=torch.float64))

    def log_probs(self) -> Tensor:
        """Normalised log-probabilities (n_designs,); LOG_ZERO or less stands for zero."""
        return (self.prior + self.tilt).log_softmax(dim=0)
