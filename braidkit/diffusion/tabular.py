"""TabularDiffusion: a chain on all designs of a short space, whose policies are tables."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._policies import Categorical
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.parameters import check_number
from braidkit.spaces import Points, SequenceSpace

MAX_DESIGNS = 1024


class TabularDiffusion(DiffusionModel):
    r"""A discrete diffusion on the S designs of a short space, known exactly.

    Noising step t replaces the design by a uniform draw with probability ``1 / (n_steps - t + 1)``, and else keeps it:
    at x_t a share ``1 - t / n_steps`` of the designs is unchanged, and x_T is independent of x_0 (a memoryless start).
    `fit` counts designs and sets the policies to the reversed chain by Bayes' rule, ``p(x_{t-1} | x_t) \propto
    p_{t-1}(x_{t-1}) q(x_t | x_{t-1})``, so that x_0 has exactly the smoothed law of the data. Nothing is learned by
    gradients, and of the settings of `fit` none has an effect.

    States are one-hot over the designs in the order of ``itertools.product`` over the alphabet. For worlds whose exact
    optimum is to be known, and for tests; `MaskedDiffusion` is the chain for longer sequences.

    Parameters
    ----------
    space : SequenceSpace
        Of at most 1,024 designs.
    n_steps : int, default=10
    smoothing : float, default=1.0
        Pseudo-count, spread evenly over all designs: the law of x_0 is ``(count + smoothing / S) / (n + smoothing)``.
        Above 0, so that the KL to every policy is finite.

    References
    ----------
    Austin et al. (2021), "Structured denoising diffusion models in discrete state-spaces", for uniform noising. BRAID
    (Uehara et al., 2024), equation (6), for the policies.

    Examples
    --------
    >>> from braidkit import SequenceSpace, TabularDiffusion
    >>> model = TabularDiffusion(SequenceSpace("DNA", length=2), smoothing=0.01).fit(["AC", "GT"] * 50)
    >>> sorted(set(model.sample(20, random_state=0)))
    ['AC', 'GT']
    """

    _reads_out_by_network: ClassVar[bool] = False
    space: SequenceSpace

    def __init__(self, space: SequenceSpace, *, n_steps: int = 10, smoothing: float = 1.0) -> None:
        super().__init__(space, n_steps=n_steps)
        SequenceSpace.require(space, "TabularDiffusion")
        n_designs = space.n_letters**space.length
        if n_designs > MAX_DESIGNS:
            raise InvalidParameterError(
                f"TabularDiffusion lists all designs, at most {MAX_DESIGNS:,}; the space has {n_designs:,}: use a "
                "MaskedDiffusion."
            )
        check_number("smoothing", smoothing, low=0, above=True)
        self.smoothing = float(smoothing)
        letters = torch.tensor(list(itertools.product(range(space.n_letters), repeat=space.length)))
        self.register_buffer("designs", nn.functional.one_hot(letters, space.n_letters).float(), persistent=False)

    designs: Tensor

    @property
    def default_solver(self) -> str:
        return "trajectory_balance"

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (len(self.designs),)

    def initial(self, n: int) -> Categorical:
        """Uniform over the designs."""
        return Categorical(torch.zeros(n, *self.state_shape, device=self.device))

    def policy(self, x_t: Tensor, t: int) -> Categorical:
        """The rows of table t."""
        return Categorical(x_t @ self._tables().logits[t - 1])

    def readout(self, x_0: Tensor) -> Tensor:
        """The designs that the states stand for."""
        return torch.einsum("ns,slk->nlk", x_0, self.designs)

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        """The mean design, by the remaining tables."""
        law = x_t
        for logits in self._tables().logits[:t].flip(0):
            law = law @ logits.softmax(dim=1)
        return self.readout(law)

    def as_points(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The designs that the states stand for."""
        return self.readout(x_t)

    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """Keep designs with probability ``1 - t / n_steps``, and draw the others uniformly."""
        number = torch.einsum("nlk,slk->ns", x, self.designs).argmax(dim=1)
        uniform = torch.randint(len(self.designs), (len(x),), generator=generator, device=x.device)
        share = torch.as_tensor(t, device=x.device) / self.n_steps
        replaced = torch.rand(len(x), generator=generator, device=x.device) < share
        return nn.functional.one_hot(torch.where(replaced, uniform, number), len(self.designs)).to(x.dtype)

    @torch.no_grad()
    def log_policies(self) -> list[Tensor]:
        """Log-probabilities log p_t(x_{t-1} | x_t), from t = 1 to n_steps.

        Returns
        -------
        log_policies : list of n_steps Tensors of shape (S, S), float64
            Rows are x_t, columns x_{t-1}.
        """
        return list(self._tables().logits.double().log_softmax(dim=2))

    def _tables(self) -> TransitionTables:
        if not isinstance(self.network, TransitionTables):
            raise self._not_trained()
        return self.network

    def _build_network(self, n_conditions: int = 0) -> nn.Module:
        if n_conditions:
            raise IncompatibleModelError("a TabularDiffusion takes no condition; pass a MaskedDiffusion.")
        return TransitionTables(self.n_steps, *self.state_shape)

    @torch.no_grad()
    def _train(self, x: Points, seed: int, **settings: Any) -> None:
        """Count the points and reverse the noising; neither the seed nor the settings matter."""
        n_designs = len(self.designs)
        counts = torch.zeros(n_designs, dtype=torch.float64, device=x.device)
        for part in x.split(1024):
            number = torch.einsum("nlk,slk->ns", part, self.designs).argmax(dim=1)
            counts += torch.bincount(number, minlength=n_designs)
        law = (counts + self.smoothing / n_designs) / (len(x) + self.smoothing)
        keep = torch.eye(n_designs, dtype=torch.float64, device=x.device)
        for t in range(1, self.n_steps + 1):
            replaced = 1 / (self.n_steps - t + 1)
            noising = (1 - replaced) * keep + replaced / n_designs  # symmetric: q(x_t | x_{t-1}) either way round
            self._tables().logits[t - 1] = (law * noising).log().log_softmax(dim=1)
            law = law @ noising

    def _config(self) -> dict[str, Any]:
        return {"n_steps": self.n_steps, "smoothing": self.smoothing}


class TransitionTables(nn.Module):
    """Logits of x_{t-1} (last axis) given x_t (middle axis), one table a step; uniform at first.

    Parameters
    ----------
    n_steps, n_states : int
    """

    def __init__(self, n_steps: int, n_states: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n_steps, n_states, n_states))
