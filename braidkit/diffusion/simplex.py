"""Diffusion on the simplex: sequences of letters, each position a chain of broken sticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from braidkit.diffusion._jacobi import StickLaw, break_sticks
from braidkit.diffusion._letters import LetterChain, without_zeros
from braidkit.diffusion._policies import Bridge, Gaussian, Policy, Sticks
from braidkit.diffusion._strata import strata
from braidkit.diffusion._zero_layer import zero_at_first
from braidkit.exceptions import InvalidParameterError
from braidkit.kernels.bridge import sticks_of_angles
from braidkit.kernels.simplex import EPS, pull_towards, softmax, sum_after
from braidkit.networks import DilatedConvNet, share
from braidkit.parameters import check_choice, check_number, is_word
from braidkit.spaces import SequenceSpace

NETWORKS: dict[str, dict[str, Any]] = {
    "small": {"width": 32, "kernel_size": 5, "dilations": (1, 2, 4, 8, 1, 2, 4, 8), "time_scale": 1.0},
    # The authors embed t / 2 with a scale of 30.
    "paper": {"width": 256, "kernel_size": 9, "dilations": (1, 1, 4, 16, 64) * 4, "time_scale": 15.0},
}


@dataclass(frozen=True, eq=False)
class StationarySticks(Policy):
    """Independent Beta(1, b) sticks: the law that the noising ends in, uniform on the simplex.

    Attributes
    ----------
    b : Tensor of shape (n, length, n_letters - 1)
    """

    b: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """Sticks from standard normal noise z, by the inverse distribution function: 1 - (1 - Phi(z))^(1/b)."""
        return -torch.expm1(torch.special.log_ndtr(-noise) / self.b)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (n,) of sticks (n, length, n_letters - 1) in (0, 1)."""
        return (self.b.log() + (self.b - 1) * torch.log1p(-x)).flatten(1).sum(dim=1)

    def kl(self, other: StationarySticks) -> Tensor:
        """KL (n,), nats: log(b / b') + b' / b - 1 a stick; 0 to the pretrained policy, which has the same b."""
        return ((self.b / other.b).log() + other.b / self.b - 1).flatten(1).sum(dim=1)


class StationaryAngles(StationarySticks):
    """The same law of the sticks' angles asin(sqrt(v))."""

    def rsample(self, noise: Tensor) -> Tensor:
        """Angles from standard normal noise."""
        return super().rsample(noise).sqrt().asin()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (n,) of angles (n, length, n_letters - 1) in (0, pi / 2)."""
        return super().log_prob(x.sin().square()) + (2 * x).sin().log().flatten(1).sum(dim=1)


class SimplexDiffusion(LetterChain):
    r"""The Dirichlet diffusion of DDSM, the paper's backbone for sequences, with exact noising and exact scores.

    Each position holds K - 1 sticks v in (0, 1), of ``x_k = v_k prod_{j<k} (1 - v_j)``, which forget their letter by
    the Jacobi diffusion ``dv = (s/2) [1 - v - b v] dt + sqrt(s v (1 - v)) dB``, b = K - 1, ..., 1, s = 2 / (1 + b).
    Back in time it needs the distribution q of the clean letter, ``Q_i = sum_{k>i} q_k``, and the mean lineage counts
    E0, E1 given v_i and a start at 0 or 1 (`braidkit.diffusion._jacobi`).

    By default a state is an angle ``theta = asin(sqrt(v))``, where the noise is the same everywhere and the edges
    reflect: any number is an angle, and is read as ``v = sin^2 theta``. Back in time the diffusion is there
    ``dtheta = (s/2) [(1/4 + q_i E1) cot theta - (b/2 - 1/4 + Q_i E0) tan theta] dt + (sqrt(s)/2) dB``. E0 and E1 fall
    with time about as 1 / sinh(t), so that for small t it pulls toward the predicted letter as a Brownian bridge. A
    step from t to t' takes the solution v' of the drift, which is linear in v, with E0 and E1 averaged over the step as
    1 / sinh(t) is, and a bridge's noise: ``theta' ~ N(asin(sqrt(v')), s (t - t') (t' / t) / 4)``, where

    ``v' = A/(A+B) + (v - A/(A+B)) exp(-A-B)``, ``w = sinh(t) log(tanh(t/2) / tanh(t'/2))``,
    ``A_i = s [(t - t') / 4 + w q_i E1]``, ``B_i = s [(t - t') (b/2 - 1/4) + w Q_i E0]``.

    With ``scheme="euler"`` a state is v itself, and a step of length h the Euler step of the reverse diffusion,

    ``mean_i = v_i + h s_i [(1 - (1 + b_i) v_i) / 2 + (1 - v_i) q_i E1(v_i) - v_i Q_i E0(v_i)]``,
    ``std_i^2 = h s_i v_i (1 - v_i)``.

    It is what was drawn, which may lie outside (0, 1), and is clamped where it is read. So either way the policies are
    exactly normal, and share their deviation with the pretrained policy. In half of Euler's steps the sequences of
    bridges are at least as good (``benchmarks/speed/steps.py``).

    Parameters
    ----------
    space : SequenceSpace
    n_steps : int, optional
        Steps of the chain, equally long from `max_time` down to `min_time`. By default 25 bridges, or 50 Euler steps.
    head : {"letters", "score"}, default="letters"
        Output of the network. "letters" is the distribution q, trained by cross-entropy; the rest of the score is in
        closed form. The network sees the likelihoods of each position's letters given its noised sticks, scaled to sum
        to one, and adds to their logarithms. So it only has to learn how letters depend on each other. "score" is the
        score in x, centred over letters, trained by denoising score matching, as in published checkpoints.
    network : {"small", "paper"}, default="small"
        Size of the network: 8 convolutions of width 5 and 32 channels, for a CPU, or the authors' 20 of width 9 and 256
        channels.
    max_time : float, default=4.0
        Time at which the chain starts. At 4 hardly anything is left of the letter.
    min_time : float, optional
        Time at which the chain ends. By default 0.4 with "letters", where the readout does the rest, and 1/400 with
        "score".
    scheme : {"bridge", "euler"}, optional
        Kind of the steps. "bridge", bridges of angles, is the default with head "letters", and not available with
        "score". "euler" are the paper's steps. The network is the same for both.
    score_scale : (times, factors), optional
        Factor of the network's output for head "score": linear between these increasing times, and constant outside. By
        default the mean lineage count of each time.
    prior : {"auto", "markov"} or None
        Start of the logits of head "letters". "markov", which is "auto", is the exact log-posterior of a `MarkovLaw` of
        the designs given all sticks. None is that of uniform letters given each position's own sticks.

    Notes
    -----
    With "letters" the readout is the distribution q at the last state, whose likeliest letters are the design. It is
    nearly one-hot, so its gradient vanishes almost everywhere. The backward pass therefore uses another estimate of the
    design, which is linear in each stick and unbiased under the noising: ``v_0 = m + exp(t) (v - m)`` with the
    stationary mean m = 1 / (1 + b), broken into letters. For rewards that are linear in each position this gives the
    pathwise gradient. A chain that goes on to time 1/400 gives the same designs, but noisier gradients, because every
    letter is decided long before.

    Held letters are known to the Markov law. Their sticks are those of noised letters, drawn with the others and
    without KL: they are the same in every fine-tuned chain. For the law this is exact up to the length of the steps.
    For the network it is the replacement method, which is an approximation. With head "score" held letters are written
    at the end only. A `MaskedDiffusion` holds letters exactly.

    References
    ----------
    P. Avdeyev et al., "Dirichlet diffusion score model for biological sequence generation", ICML 2023.

    Examples
    --------
    >>> from braidkit import SequenceSpace, SimplexDiffusion
    >>> model = SimplexDiffusion(SequenceSpace("DNA", length=4), n_steps=10)
    >>> model = model.fit(["ACGT", "ACGA", "TCGT"] * 50, max_iter=20, random_state=0)
    >>> designs = model.sample(3, random_state=0)
    >>> [len(design) for design in designs]
    [4, 4, 4]
    """

    space: SequenceSpace

    def __init__(
        self,
        space: SequenceSpace,
        *,
        n_steps: int | None = None,
        head: str = "letters",
        network: str = "small",
        max_time: float = 4.0,
        min_time: float | None = None,
        scheme: str | None = None,
        score_scale: tuple[Sequence[float], Sequence[float]] | None = None,
        prior: str | None = "auto",
    ) -> None:
        if is_word(prior, "auto"):
            prior = "markov" if is_word(head, "letters") else None
        if scheme is None:
            scheme = "euler" if is_word(head, "score") else "bridge"
        if n_steps is None:
            n_steps = 50 if is_word(scheme, "euler") else 25
        super().__init__(space, n_steps=n_steps, prior=prior)
        SequenceSpace.require(space, "SimplexDiffusion")
        check_choice("head", head, ("letters", "score"))
        check_choice("network", network, NETWORKS)
        check_choice("scheme", scheme, ("bridge", "euler"))
        if scheme == "bridge" and head != "letters":
            raise InvalidParameterError('scheme="bridge" takes letters; pass head="letters", or scheme="euler".')
        if score_scale is not None and head != "score":
            raise InvalidParameterError('score_scale is for head="score"; leave it out.')
        if prior is not None and head != "letters":
            raise InvalidParameterError('a prior predicts letters; pass head="letters", or prior=None.')
        if min_time is None:
            min_time = 0.4 if head == "letters" else 1 / 400
        check_number("min_time", min_time)
        check_number("max_time", max_time, high=100)
        if not 1e-3 <= min_time < max_time:
            raise InvalidParameterError(
                f"min_time must be at least 0.001 and below max_time; got {min_time} and {max_time}."
            )
        self.head = head
        self.network_size = network
        self.scheme = scheme
        self.constant_std = scheme == "bridge"
        self.times = np.linspace(min_time, max_time, self.n_steps + 1).tolist()
        self.law = StickLaw(space.n_letters, self.times)
        self.register_buffer("clock", torch.tensor(self.times), persistent=False)
        self.register_buffer("speed", 2 / (1 + self.law.b), persistent=False)
        self._scale_curve = None if score_scale is None else _checked_curve(score_scale)
        if head == "score":
            scale = self.law.mean_lineages.mean(dim=1)
            if self._scale_curve is not None:
                times, scales = self._scale_curve
                scale = torch.from_numpy(np.interp(self.times, times, scales)).float()
            self.register_buffer("score_scale", scale, persistent=False)

    clock: Tensor
    speed: Tensor
    score_scale: Tensor

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (self.space.length, self.space.n_letters - 1)

    def initial(self, n: int) -> StationarySticks:
        """The uniform law on the simplex, in sticks or their angles."""
        law = StationarySticks if self.scheme == "euler" else StationaryAngles
        return law(self.law.b.expand(n, *self.state_shape))

    def policy(self, x_t: Tensor, t: int) -> Bridge | Sticks | Gaussian:
        """The step of the reverse diffusion from time ``times[t]`` to ``times[t - 1]``."""
        if self.network is None:
            raise self._not_trained()
        v = self._sticks(x_t)
        if self.head == "letters":
            evidence = self.law.evidence(v, t)
            logits = self._letter_logits(self.network, evidence.log_likelihoods(), t)
            counts = evidence.lineages_zero, evidence.lineages_one
            if self.scheme == "bridge":
                return Bridge(x_t, logits, *counts, self.times[t], self.times[t - 1])
            return Sticks(x_t, logits, *counts, self.times[t] - self.times[t - 1])
        lengths = (self.times[t] - self.times[t - 1]) * self.speed
        return Gaussian(self._reverse(self.network, v, t, lengths), (lengths * v * (1 - v)).sqrt())

    def readout(self, x_0: Tensor) -> Tensor:
        """The pretrained network's point of the simplex for the last states.

        With "letters" the predicted distribution, whose gradient is that of the unbiased linear estimate (see Notes);
        with "score" the mean of a last Euler step to time 0.
        """
        network = self.readout_network
        v = self._sticks(x_0)
        if self.head == "score":
            return break_sticks(self._reverse(network, v, 0, self.times[0] * self.speed).clamp(0, 1))
        with torch.no_grad():
            log_likelihoods = self.law.evidence(v, 0).log_likelihoods()
            letters = softmax(self._letter_logits(network, log_likelihoods, 0))
        # Straight-through: forwards the predicted letters, backwards the linear estimate of the Notes.
        stationary = 1 / (1 + self.law.b)
        estimate = break_sticks(stationary + math.exp(self.times[0]) * (v - stationary))
        return letters + (estimate - estimate.detach())

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        """The network's letters; with "score" the mean of one Euler step all the way to time 0."""
        if self.network is None:
            raise self._not_trained()
        v = self._sticks(x_t)
        if self.head == "score":
            return break_sticks(self._reverse(self.network, v, t, self.times[t] * self.speed).clamp(0, 1))
        return softmax(self._letter_logits(self.network, self.law.evidence(v, t).log_likelihoods(), t))

    def with_steps(self, n_steps: int, scheme: str | None = None) -> SimplexDiffusion:
        """The same trained model with other steps; the network accepts any time between the first and the last.

        Parameters
        ----------
        n_steps : int
        scheme : {"bridge", "euler"}, optional
            By default that of this chain.

        Returns
        -------
        model : SimplexDiffusion
            Frozen, on the same weights.

        Examples
        --------
        >>> from braidkit import SequenceSpace, SimplexDiffusion
        >>> model = SimplexDiffusion(SequenceSpace("DNA", 4), n_steps=10).fit(["ACGT"] * 20, max_iter=2)
        >>> model.with_steps(5, "bridge").n_steps
        5
        """
        self.check_trained()
        config = self._config() | {"n_steps": n_steps, "scheme": self.scheme if scheme is None else scheme}
        model = SimplexDiffusion(self.space, **config)
        model.kind = self.kind
        model.prior = self.prior
        model.to(self.device)
        model.network = share(self.trainable)
        model.decoder = None if self.decoder is None else share(self.decoder)
        model.freeze()
        return model

    def _sticks(self, x: Tensor) -> Tensor:
        """Sticks of states, no closer than EPS to 0 and 1."""
        return x.clamp(EPS, 1 - EPS) if self.scheme == "euler" else sticks_of_angles(x)

    def _reverse(self, network: nn.Module, v: Tensor, t: int, lengths: Tensor) -> Tensor:
        """Mean of an Euler step back in time by the network's score, from sticks v at time number t."""
        return v + lengths * (0.5 * (1 - (1 + self.law.b) * v) + self._pull(network, v, t))

    def _pull(self, network: nn.Module, v: Tensor, times: Tensor | int) -> Tensor:
        """The network's score of sticks v (n, L, K - 1), times v (1 - v), less the same of the stationary law."""
        x = break_sticks(v)
        score = network(x, self._clock(times))
        score = self.score_scale[times].reshape(-1, 1, 1) * (score - score.mean(dim=-1, keepdim=True))
        # With y_j = x_j score_j the chain rule of stick breaking reads (1 - v_i) y_i - v_i sum_{j>i} y_j.
        y = x * score
        return (1 - v) * y[..., :-1] - v * sum_after(y)

    def _letter_logits(self, network: nn.Module, log_likelihoods: Tensor, times: Tensor | int) -> Tensor:
        """Logits (n, L, K) of the clean letters, those that are held among them."""
        return self.hold_logs(self._logits(network, log_likelihoods, self.hold_logs(log_likelihoods), times))

    def _logits(self, network: nn.Module, log_likelihoods: Tensor, known: Tensor, times: Tensor | int) -> Tensor:
        """Logits (n, L, K): the log-posterior of the Markov law, plus the network's correction from the sticks."""
        base = log_likelihoods if self.prior is None else without_zeros(self.prior.posterior(known))
        return base + network(softmax(log_likelihoods), self._clock(times))

    def _clock(self, times: Tensor | int) -> Tensor:
        """Times (n,) of time numbers (n,), or (1,) of one that all rows share."""
        return self.clock[times].reshape(-1)

    def as_points(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The likelihoods of each position's letters given its sticks, scaled to sum to one.

        They are nearly equal where the noise is strong, and nearly one-hot where it is weak.
        """
        return softmax(self.law.evidence(self._sticks(x_t), t).log_likelihoods())

    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """Draw sticks, or their angles, by the exact law of the Jacobi diffusions at ``times[t]``."""
        times = torch.as_tensor(t, device=x.device).expand(len(x))
        v = self.law.noise(x, times, generator)
        return v if self.scheme == "euler" else v.sqrt().asin()

    def _build_network(self, n_conditions: int = 0) -> nn.Module:
        n_letters = self.space.n_letters
        network = DilatedConvNet(n_letters + n_conditions, n_letters, **NETWORKS[self.network_size])
        if self.head == "letters":
            zero_at_first(network.last[-1])
        return network

    def _loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        assert self.network is not None
        # Draw times with probabilities proportional to exp(-t), at which rate sticks forget their letter.
        distribution = (-self.clock).softmax(dim=0).cumsum(dim=0)
        times = torch.searchsorted(distribution, strata(len(x), generator) / len(x)).clamp(max=self.n_steps)
        v = self.law.noise(x, times, generator).clamp(EPS, 1 - EPS)
        evidence = self.law.evidence(v, times)
        if self.head == "letters":
            log_likelihoods = evidence.log_likelihoods()
            logits = self._logits(self.network, log_likelihoods, log_likelihoods, times)
            return nn.functional.cross_entropy(logits.flatten(0, 1), x.argmax(dim=-1).flatten())
        error = self._pull(self.network, v, times) - pull_towards(x, v, evidence.lineages_zero, evidence.lineages_one)
        # Squared targets are near score_scale^2 / (1 + score_scale) at all times.
        weight = ((1 + self.score_scale) / self.score_scale.square())[times, None, None]
        return (weight * self.speed * error.square() / (v * (1 - v))).mean()

    def _config(self) -> dict[str, Any]:
        return {
            "n_steps": self.n_steps,
            "head": self.head,
            "network": self.network_size,
            "max_time": self.times[-1],
            "min_time": self.times[0],
            "scheme": self.scheme,
            "score_scale": self._scale_curve,
            "prior": self.prior_kind,
        }


def _checked_curve(score_scale: Any) -> list[list[float]]:
    """Times and scales of a score; raises unless times ascend and scales are positive, one a time."""
    try:
        curve = np.array([np.asarray(part, dtype=np.float64) for part in score_scale])
    except (TypeError, ValueError):
        curve = np.zeros(0)
    if curve.ndim != 2 or len(curve) != 2 or not np.isfinite(curve).all() or not (np.diff(curve[0]) > 0).all():
        curve = np.zeros(0)
    if not curve.size or curve[1].min() <= 0:
        raise InvalidParameterError(
            f"score_scale must be two lists of one length: ascending times, and the scales there, > 0; got "
            f"{score_scale!r:.60}."
        )
    return curve.tolist()
