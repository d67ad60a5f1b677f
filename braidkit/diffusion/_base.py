"""The contract of every pretrained chain: a diffusion model as a list of policies."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from braidkit.diffusion._policies import Policy
from braidkit.diffusion._pretraining import check_training, pretrain
from braidkit.diffusion._sharing import SharedModel
from braidkit.diffusion.precision import at_precision
from braidkit.diffusion.walk import last_state
from braidkit.exceptions import (
    IncompatibleModelError,
    InvalidDesignError,
    InvalidParameterError,
    NotTrainedError,
)
from braidkit.parameters import as_generator, check_number, check_random_state
from braidkit.spaces import Points, Space
from braidkit.torch_state import ordinary_torch, seeded


class DiffusionModel(SharedModel, abc.ABC):
    """A chain of policies p_T, ..., p_1 from an initial law to designs.

    Time runs as in the paper: `initial` draws x_T, ``policy(x_t, t)`` for t = n_steps, ..., 1 draws x_{t-1}, and
    `readout` turns the last state into a point of the design space. The readout has no noise, so no KL can see it: it
    is always done by the pretrained network, also in a fine-tuned model.

    After `fit` or `from_pretrained` a model is frozen, because estimators and their clones share it. It knows nothing
    of rewards; a fine-tuned model is a DiffusionModel too.

    Parameters
    ----------
    space : Space
        The design space.
    n_steps : int
        Number of policies.

    Attributes
    ----------
    network : nn.Module or None
        The network that the policies are computed from; None before training.
    decoder : nn.Module or None
        The pretrained network of a fine-tuned model, for the readout; None if that is `network` itself.
    kind : str or None
        Kind of designs that `fit` saw, and that `sample` returns.
    frozen : bool
        Whether the weights may no longer be changed.
    """

    # Whether all steps of a trajectory read one draw of noise, which is then held once.
    _draws_once: ClassVar[bool] = False
    # Whether what is the same in all measured designs may be written into the chain's.
    holds_constants: ClassVar[bool] = True
    # Whether the policies are Gaussian, with deviations that do not depend on the state.
    constant_std: bool = False
    # Whether draws take so long that by default few are looked at.
    draws_slowly: ClassVar[bool] = False
    # Most trajectories at a time where no gradient is kept.
    rows_at_once: int = 256

    network: nn.Module | None
    decoder: nn.Module | None

    def __init__(self, space: Space, *, n_steps: int) -> None:
        super().__init__()
        check_number("n_steps", n_steps, low=1, whole=True)
        self.space = space
        self.n_steps = int(n_steps)
        self.kind: str | None = None
        self.frozen = False
        self.network = None
        self.decoder = None

    @property
    @abc.abstractmethod
    def state_shape(self) -> tuple[int, ...]:
        """Shape of the chain's state for one design; see `braidkit.diffusion.context` for what it is conditioned on."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the standard normal noise of one draw of one design."""
        return self.state_shape

    @abc.abstractmethod
    def initial(self, n: int) -> Policy:
        """The law of x_T, for n designs."""

    @abc.abstractmethod
    def policy(self, x_t: Tensor, t: int) -> Policy:
        """The law of x_{t-1} given states x_t of shape (n, \\*state_shape); t from n_steps down to 1."""

    @abc.abstractmethod
    def readout(self, x_0: Tensor) -> Tensor:
        """Points (n, \\*space.shape) of the design space for the last states, by the pretrained network."""

    @abc.abstractmethod
    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        """Expected designs (n, \\*space.shape) given states x_t, by the chain's own network."""

    def as_points(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """States as noisy points (n, \\*space.shape), which a network of designs can read; differentiable.

        `t` is that of `noised`.
        """
        return x_t

    @abc.abstractmethod
    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """Draw states x_t of clean designs by the noising that the chain reverses.

        Parameters
        ----------
        x : Tensor of shape (n, \\*space.shape)
            Designs.
        t : int, or LongTensor of shape (n,)
            From 0 to n_steps; one for all rows, or one a row.
        generator : torch.Generator
            On the device of `x`.

        Returns
        -------
        x_t : Tensor of shape (n, \\*state_shape)
        """

    def _loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Mean training loss of clean points (n, \\*space.shape), for chains that `_train` trains by gradients."""
        raise NotImplementedError(f"{type(self).__name__} has neither a `_loss` nor a `_train` of its own.")

    def _calibrate(self, x: Tensor, generator: torch.Generator) -> None:
        """Set quantities that depend on the trained network; uses points held out from training if there are enough."""
        return

    @property
    def trainable(self) -> nn.Module:
        """The part that fine-tuning changes: the network, whole.

        Raises
        ------
        NotTrainedError
            If there is none yet.
        """
        if self.network is None:
            raise self._not_trained()
        return self.network

    @property
    def default_solver(self) -> str:
        """The solver that suits the chain best, by its name in `braidkit.finetuning`."""
        return "direct"

    @property
    def is_trained(self) -> bool:
        return self.network is not None

    @property
    def device(self) -> torch.device:
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def readout_network(self) -> nn.Module:
        """The pretrained network: `decoder`, or `network` in a model that was not fine-tuned."""
        network = self.network if self.decoder is None else self.decoder
        if network is None:
            raise self._not_trained()
        return network

    @ordinary_torch()
    def fit(
        self,
        X: Any,
        *,
        max_iter: int | str = "auto",
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> DiffusionModel:
        """Train the chain on designs.

        Parameters
        ----------
        X : designs of the space, as `Space.encode` takes them
        max_iter : int or "auto"
            Optimiser updates; "auto" grows with the number of designs.
        batch_size : int, default=256
        learning_rate : float, default=3e-3
            Of Adam, with a short warm-up and a cosine down to zero.
        validation_fraction : float, default=0.1
            Share of the designs whose loss decides which weights are kept; at least 16, where there are 64 or more.
        random_state : int, RandomState or None
        verbose : int, default=0
            Show a progress bar if not 0.

        Returns
        -------
        self : DiffusionModel
            Frozen.

        Raises
        ------
        IncompatibleModelError
            If the model is trained already; `copy.deepcopy` gives a copy that can be trained further.
        InvalidDesignError
            If a design is not in the space.
        InvalidParameterError
            If a setting is out of range, before any work.
        """
        if self.frozen:
            raise IncompatibleModelError(
                f"this {type(self).__name__} is trained already, and others may share it; train a new model, or go on "
                "from a copy: copy.deepcopy(model).fit(X)."
            )
        check_training(max_iter, batch_size, learning_rate, validation_fraction, verbose)
        x = self.space.points(X).to(self.device)
        if len(x) == 0:
            raise InvalidDesignError("X is empty: there is nothing to learn from.")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        if self.network is None:
            with seeded(seed):
                self.network = self._build_network().to(self.device)
        self._train(
            x,
            seed,
            max_iter=max_iter,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation_fraction=validation_fraction,
            verbose=verbose,
        )
        self.kind = self.space.kind_of(X)
        return self.freeze()

    def _train(self, x: Points, seed: int, *, max_iter: int | str, validation_fraction: float, **settings: Any) -> None:
        """Fit the network to points by its loss; `settings` are those of `fit_supervised`."""
        pretrain(self, x, seed, max_iter=max_iter, validation_fraction=validation_fraction, **settings)

    @property
    def knows_law(self) -> bool:
        """Whether `log_prob` gives the exact probability of designs."""
        return False

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability (n,) of designs (n, \\*space.shape), nats, where the chain `knows_law`."""
        raise NotImplementedError(f"a {type(self).__name__} does not know its law.")

    def rarity(self, x: Tensor) -> Tensor:
        """Rarity of designs (n, \\*space.shape) compared with the chain's own draws; 0 if it has no law.

        See `LetterChain.rarity` for chains that have one.
        """
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)

    def check_trained(self) -> None:
        """Raise NotTrainedError unless the model has been trained or loaded."""
        if not self.is_trained:
            raise self._not_trained()

    def _not_trained(self) -> NotTrainedError:
        return NotTrainedError(
            f"this {type(self).__name__} was never trained; call its fit(X), or load one with from_pretrained."
        )

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw the standard normal noise of n whole trajectories, on the CPU.

        Parameters
        ----------
        n : int
        generator : torch.Generator
            On the CPU. It gives one seed a row, so that a row's design does not depend on how many are drawn at once.
            Seeds have 32 bits: among n rows expect n^2 / 2^33 pairs alike, one in 100,000 rows.

        Returns
        -------
        noise : Tensor of shape (n, n_steps + 1, \\*noise_shape)
            Entry 0 makes x_T; entry t makes x_{t-1}. Where all entries are one draw, they share its memory.
        """
        check_number("n", n, low=0, whole=True)
        if not isinstance(generator, torch.Generator):
            raise InvalidParameterError(f"generator must be a torch.Generator; got {generator!r}.")
        shape = (1 if self._draws_once else self.n_steps + 1, *self.noise_shape)
        try:
            noise = torch.empty(n, *shape)
        except RuntimeError as error:
            size = 4 * n * math.prod(shape) / 2**30
            raise InvalidParameterError(
                f"the noise of {n:,} trajectories needs {size:,.0f} GiB, more than there are; pass a smaller "
                "batch_size, or draw fewer at once."
            ) from error
        row = torch.Generator()
        for i, seed in enumerate(torch.randint(2**62, (n,), generator=generator).tolist()):
            torch.randn(shape, generator=row.manual_seed(seed), out=noise[i])
        return noise.expand(n, self.n_steps + 1, *self.noise_shape)

    @torch.no_grad()
    def sample_points(self, noise: Tensor) -> Tensor:
        """Run the chain on given noise; gives points of shape (n, \\*space.shape), not yet discretised."""
        self.check_trained()
        self.check_noise(noise)
        return self.readout(last_state(self, noise.to(self.device)))

    def check_noise(self, noise: Any) -> None:
        """Raise unless this is noise of whole trajectories, as `draw_noise` gives it."""
        expected = (self.n_steps + 1, *self.noise_shape)
        if not isinstance(noise, Tensor) or tuple(noise.shape[1:]) != expected:
            found = getattr(noise, "shape", type(noise).__name__)
            shape = f"(n, {', '.join(map(str, expected))})"
            raise InvalidParameterError(f"noise must be a tensor of shape {shape}, as of draw_noise; got {found}.")

    @ordinary_torch()
    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | torch.Generator | None = None,
        batch_size: int = 256,
        precision: str = "float32",
    ) -> Any:
        """Draw designs, of the kind that `fit` saw.

        Parameters
        ----------
        n_samples : int, default=1
        random_state : int, RandomState, torch.Generator or None
        batch_size : int, default=256
            Designs at a time; the designs do not depend on it.
        precision : {"float32", "bfloat16"}, default="float32"
            Of the network within the policies. In bfloat16 wide networks are twice as fast on some processors, and the
            designs of a seed are other ones.

        Returns
        -------
        designs : list of str, or ndarray
        """
        self.check_trained()
        check_number("n_samples", n_samples, low=1, whole=True)
        check_number("batch_size", batch_size, low=1, whole=True)
        generator, chain = as_generator(random_state), at_precision(self, precision)
        batch_size = min(batch_size, self.rows_at_once)
        sizes = [min(batch_size, n_samples - i) for i in range(0, n_samples, batch_size)]
        points = [chain.sample_points(self.draw_noise(size, generator)) for size in sizes]
        return self.space.decode(torch.cat(points), self.kind)

    def __getattr__(self, name: str) -> Any:
        # A property that raises NotTrainedError, an AttributeError, ends here, where nn.Module would hide why.
        found = getattr(type(self), name, None)
        return found.__get__(self) if isinstance(found, property) else super().__getattr__(name)
