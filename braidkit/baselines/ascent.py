"""RewardAscent: gradient ascent on the reward from the best measured designs, without a pretrained model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from braidkit.baselines.baseline import Baseline
from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.contracts import standardised
from braidkit.parameters import check_count, check_number, check_positive, check_random_state
from braidkit.spaces import Space
from braidkit.torch_state import ordinary_torch

# Logits that give a start's own letters seven times the weight of each other letter.
_START_LOGIT = 2.0


class RewardAscent(Baseline):
    """Gradient ascent on the reward's mean from the best measured designs: a warning, not a method to use.

    There is no generative model, so nothing keeps designs valid. There is no penalty, so nothing keeps them near the
    data. The ascent leaves the data, finds places where the reward predicts too much, and reports high values that a
    measurement does not confirm. It is here to show by how much a comparison that trusts the reward is wrong. It also
    is the strongest baseline there is wherever the reward is right everywhere.

    For sequences the variables are logits of letters. The reward sees the likeliest letters, and its gradient passes
    straight through to the softmax. For vectors they are the standardised entries.

    Parameters
    ----------
    pretrained : DiffusionModel, optional
        Only its design space is used.
    reward : regressor, default=GPBonusReward()
        With a differentiable ``standardised(x)``, or ``mean_and_penalty(x)``; a clone is fitted.
    space : Space, optional
    n_starts : int, default=128
        Best measured rows to start from. Designs repeat where more are asked for.
    n_steps : int, default=100
        Steps of Adam.
    learning_rate : float, default=0.1
        Of Adam, in logits of letters or in standard deviations of a feature.
    batch_size : int, default=256
        Designs at a time.
    device : str, default="auto"
    random_state : int, RandomState or None
    verbose : int, default=0

    Attributes
    ----------
    reward_ : regressor
    starts_ : Tensor of shape (n_starts or fewer, \\*space_.shape)
        The best rows as points, best first.
    space_ : Space
    kind_ : str
        Kind of designs that `fit` saw.
    n_features_in_ : int

    References
    ----------
    Trabucco et al. (2022), "Design-Bench: benchmarks for data-driven offline model-based optimization", "Grad".

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit.baselines import RewardAscent
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> designs = RewardAscent(random_state=0).fit(X, X.sum(axis=1)).sample(10, random_state=0)
    >>> bool((designs.sum(axis=1) > X.sum(axis=1).max()).all())  # far outside the data
    True
    """

    def __init__(
        self,
        pretrained: DiffusionModel | None = None,
        *,
        reward: Any = None,
        space: Space | None = None,
        n_starts: int = 128,
        n_steps: int = 100,
        learning_rate: float = 0.1,
        batch_size: int = 256,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.pretrained = pretrained
        self.reward = reward
        self.space = space
        self.n_starts = n_starts
        self.n_steps = n_steps
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @ordinary_torch()
    def fit(self, X: Any, y: Any) -> RewardAscent:
        """Learn the reward, and note the best rows.

        Parameters
        ----------
        X : list of str, or array-like
        y : array-like of shape (n_samples,)
            Larger is better.

        Returns
        -------
        self : RewardAscent

        Raises
        ------
        InvalidParameterError
            If the reward has no gradient.
        """
        check_count(self, "n_starts", "n_steps")
        check_positive(self, "learning_rate")
        if self.reward is not None and not hasattr(self.reward, "lower"):
            raise InvalidParameterError(
                f"reward is a {type(self.reward).__name__} without lower(x): a black box has no gradient; "
                "pass a reward of braidkit."
            )
        data = self._start(X, y)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.reward_ = self._fit_reward(self.reward, data.X, data.y, seed)
        self.starts_ = data.x[np.argsort(-data.y, kind="stable")[: self.n_starts]]
        return self

    @ordinary_torch()
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """Run ascents from starts in random order; every start is used once before any is used again.

        Parameters
        ----------
        n_samples : int, default=1
        random_state : int, RandomState or None

        Returns
        -------
        designs : list of str, or ndarray
            The kind of designs that `fit` saw.
        """
        check_is_fitted(self, "reward_")
        check_number("n_samples", n_samples, low=1, whole=True)
        order = check_random_state(random_state).permutation(len(self.starts_))
        starts = self.starts_[np.resize(order, n_samples)]
        points = torch.cat([self._climb(part) for part in starts.split(self.batch_size)])
        return self.space_.decode(points, self.kind_)

    def _climb(self, start: Tensor) -> Tensor:
        """Designs (n, \\*space.shape) that ascent reaches from designs of that shape."""
        sequences = self.space_.alphabet is not None
        free = ((_START_LOGIT if sequences else 1.0) * start).requires_grad_(True)

        def design() -> Tensor:
            return self.space_.discretise(free.softmax(dim=-1) if sequences else free)

        optimizer = torch.optim.Adam([free], lr=self.learning_rate)
        for _ in range(self.n_steps):
            # A sum, so that a design's path does not depend on the designs beside it.
            loss = -standardised(self.reward_, design())[0].sum()
            free.grad = torch.autograd.grad(loss, free)[0]
            optimizer.step()
        return design().detach()
