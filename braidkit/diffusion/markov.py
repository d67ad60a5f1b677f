"""MarkovLaw: the law of sequences in which a letter depends on the last few, with a support."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from braidkit.diffusion import _markov_fit as fitting
from braidkit.diffusion._forward_backward import draw_sequences, letter_log_posterior, letter_log_prediction
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.parameters import check_number

# Largest table (L, K ** order, K) of orders above 1. Each policy of a chain goes through it forwards and backwards:
# order 3 of 50 nucleotides costs about as much as order 1, order 4 six times as much.
_MAX_TABLE = 15_000
_MAX_ORDER = 4
# Held-out letters that the order is chosen on, and that the shares of levels are fitted on.
_MAX_HELD_OUT, _MAX_FITTED = 200_000, 50_000


class MarkovLaw(nn.Module):
    """A law of sequences: each letter depends on its position and on the `order` letters before it.

    `fit` mixes uniform letters, the data's frequencies of letters and of words, and the same by position, with shares
    that make held-out rows likeliest. Words that the data should have shown and did not show are impossible: the law
    has a support. No held-out row was outside of it.

    Parameters
    ----------
    length, n_letters : int
    order : int, default=1

    Attributes
    ----------
    transitions : Tensor of shape (length, n_letters ** order, n_letters), float64
        Probabilities of the letter at a position after those before it, whose numbers are in base `n_letters`, the
        oldest letter most significant; letters of number 0 stand before the first position.

    References
    ----------
    Rabiner (1989), "A tutorial on hidden Markov models", for the posterior of the letters.
    """

    transitions: Tensor

    def __init__(self, length: int, n_letters: int, order: int = 1) -> None:
        super().__init__()
        check_number("length", length, low=1, whole=True)
        check_number("n_letters", n_letters, low=1, whole=True)
        check_number("order", order, low=1, high=2 * _MAX_ORDER, whole=True)
        self.length, self.n_letters, self.order = length, n_letters, order
        shape = (length, n_letters**order, n_letters)
        self.register_buffer("transitions", torch.full(shape, 1 / n_letters, dtype=torch.float64))

    @classmethod
    def fit(
        cls,
        tokens: Tensor | NDArray[np.int64],
        n_letters: int,
        *,
        weights: Any = None,
        max_order: int | None = None,
        within: MarkovLaw | None = None,
        groups: Any = None,
        random_state: int = 0,
    ) -> tuple[MarkovLaw, dict[int, float]]:
        """Estimate the law of sequences, its order by held-out rows.

        Parameters
        ----------
        tokens : array of shape (n, length)
        n_letters : int
        weights : array of shape (n,), optional
            How much each row counts; all alike by default.
        max_order : int, optional
            By default up to 4, where the table is small.
        within : MarkovLaw, optional
            Rows are draws of a law within this one: it has the same order, makes nothing possible that this
            one makes impossible, and is this one where the draws tell nothing.
        groups : array of int of shape (n,), optional
            Rows of one group are held out together; by default rows that are alike.
        random_state : int
            Which groups are held out together.

        Returns
        -------
        law : MarkovLaw
        held_out : dict of int to float
            Negative log-likelihood of held-out rows by order, in nats a letter; 0 stands for independent letters.
        """
        check_number("n_letters", n_letters, low=1, whole=True)
        check_number("max_order", _MAX_ORDER if max_order is None else max_order, low=0, whole=True)
        rows = _checked_tokens(tokens, n_letters)
        length = rows.shape[1]
        w = np.ones(len(rows)) if weights is None else np.asarray(weights)
        if (
            w.dtype.kind not in "fiub"
            or w.shape != (len(rows),)
            or not (np.isfinite(w) & (w >= 0)).all()
            or w.max() == 0
        ):
            raise InvalidParameterError(f"weights must be {len(rows):,} numbers >= 0, not all 0, one a row.")
        w = w.astype(np.float64) / w.mean(dtype=np.float64)
        rng = np.random.RandomState(random_state)
        folds = fitting.folds_of(rows if groups is None else np.asarray(groups)[:, None], rng)
        sample = rng.permutation(len(rows))[: max(1, _MAX_HELD_OUT // length)]
        largest = order_within_table(length, n_letters, _MAX_ORDER if max_order is None else max_order)
        allowed = range(1 + (largest if within is None else within.order))
        base = None if within is None else within.transitions.cpu().numpy()
        counts: list[fitting.Counts] = []
        parameters, held_out, by_row, best = np.zeros(0), {}, {}, 0
        fits = {}
        for order in allowed:
            counts.append(fitting.count(rows, folds, w, order, n_letters))
            events = fitting.held_out(rows[sample], folds[sample], w[sample], counts, n_letters, base)
            some = fitting.HeldOut(*(part[..., :_MAX_FITTED] for part in events))
            parameters = fitting.fit_shares(some, parameters)
            losses = -np.log(fitting.mixture(parameters, events)[0]).reshape(-1, length).mean(axis=1)
            fits[order], by_row[order] = parameters, losses
            held_out[order] = float(np.average(losses, weights=w[sample]))
            better = w[sample] * (by_row[best] - losses)
            # A longer memory has to be better by more than luck.
            if within is not None or better.mean() > 2 * better.std() / len(better) ** 0.5:
                best = order
        table = fitting.transition_tables(counts[: best + 1], fits[best], n_letters, base)
        law = cls(length, n_letters, max(1, best))
        if best == 0:
            table = np.repeat(table, n_letters, axis=1)
        law.transitions.copy_(torch.from_numpy(table))
        return law, held_out

    def widened(self, order: int) -> MarkovLaw:
        """The same law, with contexts of more letters than it needs."""
        law = MarkovLaw(self.length, self.n_letters, order).to(self.transitions.device)
        law.transitions.copy_(self.transitions.repeat(1, self.n_letters ** (order - self.order), 1))
        return law

    def log_prob(self, tokens: Tensor) -> Tensor:
        """Log-probability (n,) of sequences (n, length), nats; -inf outside the support."""
        self._check_tokens(tokens)
        positions = torch.arange(self.length, device=tokens.device)
        return self.transitions[positions, self._contexts(tokens), tokens].log().sum(dim=1)

    def substitutions(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of sequences, and what one other letter adds to them.

        Parameters
        ----------
        tokens : LongTensor of shape (n, length)
            Possible sequences.

        Returns
        -------
        log_prob : Tensor of shape (n,)
        difference : Tensor of shape (n, length, n_letters)
            0 for the letter that is there, and -inf where it makes the sequence impossible.
        """
        self._check_tokens(tokens)
        n_letters, contexts = self.n_letters, self._contexts(tokens)
        logs = self.transitions.log()
        positions = torch.arange(self.length, device=tokens.device)
        own = logs[positions, contexts, tokens]
        difference = logs[positions, contexts] - own[..., None]
        letters = torch.arange(n_letters, device=tokens.device)
        for later in range(1, min(self.order, self.length - 1) + 1):
            # The letter is in the context of the one that comes so much later.
            moved = (letters - tokens[:, : self.length - later, None]) * n_letters ** (later - 1)
            after = logs[positions[later:, None], contexts[:, later:, None] + moved, tokens[:, later:, None]]
            difference[:, : self.length - later] += after - own[:, later:, None]
        return own.sum(dim=1), difference

    def log_normaliser(self, log_likelihoods: Tensor) -> float:
        """Logarithm of the expected product of likelihoods (length, n_letters): of what `sample` conditions on."""
        message, total = self.transitions.new_zeros(self.n_letters**self.order), 0.0
        message[0] = 1.0
        for table, logs in zip(self.transitions, log_likelihoods.to(self.transitions), strict=True):
            largest = logs.max()
            # By the contexts that follow: the oldest letter is summed over.
            message = (message[:, None] * table * (logs - largest).exp()).reshape(self.n_letters, -1).sum(dim=0)
            total += float(largest + message.sum().log())
            message = message / message.sum()
        return total

    def log_prob_moments(self, log_likelihoods: Tensor) -> tuple[float, float]:
        """Mean and standard deviation of the log-probability of what `sample` draws given likelihoods.

        Exact, by one pass from the last letter to the first. Likelihoods are logarithms (length, n_letters).
        """
        after = self._contexts_after()
        weight = self.transitions.new_ones(len(after))  # of all that may follow a context
        mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
        for table, logs in zip(self.transitions.flip(0), log_likelihoods.to(self.transitions).flip(0), strict=True):
            joint = table * (logs - logs.max()).exp() * weight[after]
            weight = joint.sum(dim=1)
            chance = joint / weight.clamp(min=torch.finfo(joint.dtype).tiny)[:, None]
            step = torch.where(joint > 0, table, 1.0).log()
            square = (chance * (step.square() + 2 * step * mean[after] + square[after])).sum(dim=1)
            mean = (chance * (step + mean[after])).sum(dim=1)
            weight = weight / weight.max()
        return float(mean[0]), float((square[0] - mean[0].square()).clamp(min=0).sqrt())

    def _check_tokens(self, tokens: Any) -> None:
        """Raise unless these are sequences (n, length) of the law's letters."""
        if not isinstance(tokens, Tensor):
            raise InvalidDesignError(f"tokens must be a tensor of whole numbers; got {tokens!r:.60}.")
        if tokens.shape[1:] != (self.length,) or tokens.dtype != torch.long:
            raise InvalidDesignError(
                f"tokens must have shape (n, {self.length}) and whole numbers, int64; got {tuple(tokens.shape)}, "
                f"{tokens.dtype}."
            )
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.n_letters:
            raise InvalidDesignError(f"tokens must be whole numbers from 0 to {self.n_letters - 1}.")

    def _check_likelihoods(self, likelihoods: Any) -> None:
        """Raise unless these are numbers (n, length, n_letters)."""
        if not isinstance(likelihoods, Tensor) or likelihoods.shape[1:] != (self.length, self.n_letters):
            shape = tuple(getattr(likelihoods, "shape", ()))
            raise InvalidDesignError(
                f"likelihoods must be a tensor of shape (n, {self.length}, {self.n_letters}); got {shape}."
            )

    def _contexts_after(self) -> Tensor:
        """Numbers (K ** order, K) of the contexts that follow each context and letter."""
        numbers = torch.arange(self.n_letters ** (self.order + 1), device=self.transitions.device)
        return numbers.reshape(-1, self.n_letters) % self.n_letters**self.order

    def _contexts(self, tokens: Tensor) -> Tensor:
        """Numbers (n, length) of the letters before each position."""
        padded = nn.functional.pad(tokens, (self.order, 0))
        contexts = torch.zeros_like(tokens)
        for o in range(self.order):
            contexts = contexts * self.n_letters + padded[:, o : o + self.length]
        return contexts

    def posterior(self, log_likelihoods: Tensor) -> Tensor:
        """Log-probabilities (n, length, n_letters) of the letters, given likelihoods of each position's letters.

        Exact, differentiable, and -inf for letters that are impossible; see `letter_log_posterior`.
        """
        self._check_likelihoods(log_likelihoods)
        return letter_log_posterior(self.transitions, log_likelihoods)

    def prediction(self, likelihoods: Tensor) -> Tensor:
        """Log-probabilities (n, length, n_letters) of the letters, given likelihoods at all other positions.

        Likelihoods are not in logarithms here, so that there are gradients at zeros; see `letter_log_prediction`.
        """
        self._check_likelihoods(likelihoods)
        return letter_log_prediction(self.transitions, likelihoods)

    def sample(self, noise: Tensor, log_likelihoods: Tensor | None = None) -> Tensor:
        """Draw whole sequences (n, length), given likelihoods if there are any.

        Parameters
        ----------
        noise : Tensor of shape (n, length)
            Uniform in [0, 1).
        log_likelihoods : Tensor of shape (n, length, n_letters), optional
        """
        fits = isinstance(noise, Tensor) and noise.shape[1:] == (self.length,)
        if not fits or not bool(((noise >= 0) & (noise <= 1)).all()):
            raise InvalidParameterError(f"noise must be a tensor of shape (n, {self.length}), with numbers in [0, 1).")
        if log_likelihoods is None:
            log_likelihoods = self.transitions.new_zeros(1, self.length, self.n_letters).expand(len(noise), -1, -1)
        return draw_sequences(self.transitions, log_likelihoods, noise)

    def n_possible(self) -> float:
        """Number of sequences in the support."""
        paths, after = torch.ones_like(self.transitions[0, :, 0]), self._contexts_after()
        for possible in (self.transitions > 0).flip(0):
            paths = (possible * paths[after]).sum(dim=1)
        return float(paths[0])


def order_within_table(length: int, n_letters: int, largest: int = _MAX_ORDER) -> int:
    """The largest order, up to some, of which the table of transitions is not too large; order 1 never is."""
    orders = range(min(length - 1, largest) + 1)
    return max(order for order in orders if order < 2 or length * n_letters ** (order + 1) <= _MAX_TABLE)


def _checked_tokens(tokens: Any, n_letters: int) -> np.ndarray:
    """Letter codes (n, length) as whole numbers; raises unless they are codes of so many letters."""
    try:
        rows = np.asarray(tokens)
    except ValueError:  # rows of several lengths
        rows = np.empty(0)
    if rows.ndim != 2 or rows.size == 0 or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n_letters:
        raise InvalidDesignError(
            f"tokens must be whole numbers from 0 to {n_letters - 1} of shape (n, length); got {tokens!r:.60}."
        )
    return rows.astype(np.int64)
