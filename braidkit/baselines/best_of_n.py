"""BestOfN: draw from the pretrained chain, and keep the designs with the highest reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from braidkit.baselines.baseline import Baseline
from braidkit.diffusion import DiffusionModel
from braidkit.parameters import as_generator, check_count, check_number, check_random_state
from braidkit.spaces import Space
from braidkit.torch_state import ordinary_torch


class BestOfN(Baseline):
    """Give the best of several pretrained designs, by the reward's lower bound.

    Each design is the best of `n_candidates` draws of its own, so designs are independent, and how many are asked for
    does not change their law. Only the reward is trained, and every design is one of the pretrained model. The KL to it
    is at most ``log N - (N - 1) / N`` nats for N candidates, without ties exactly that (2.5 nats at the default).

    Parameters
    ----------
    pretrained : DiffusionModel, optional
        By default a small one is trained on `X`.
    n_candidates : int, default=32
        Draws for each design.
    reward : regressor, default=GPBonusReward()
        The conservative reward, any regressor of designs; a clone is fitted.
    space : Space, optional
    batch_size : int, default=256
        Trajectories at a time.
    device : str, default="auto"
    random_state : int, RandomState or None
    verbose : int, default=0

    Attributes
    ----------
    pretrained_ : DiffusionModel
    reward_ : regressor
    space_ : Space
    kind_ : str
        Kind of designs that `fit` saw.
    n_features_in_ : int

    References
    ----------
    Beirami et al. (2024), "Theoretical guarantees on the best-of-n alignment policy", for the KL.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit.baselines import BestOfN
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> designs = BestOfN(random_state=0).fit(X, X.sum(axis=1)).sample(100, random_state=0)
    >>> bool(designs.sum(axis=1).mean() > X.sum(axis=1).mean() + 1)
    True
    """

    def __init__(
        self,
        pretrained: DiffusionModel | None = None,
        n_candidates: int = 32,
        *,
        reward: Any = None,
        space: Space | None = None,
        batch_size: int = 256,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.pretrained = pretrained
        self.n_candidates = n_candidates
        self.reward = reward
        self.space = space
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @ordinary_torch()
    def fit(self, X: Any, y: Any) -> BestOfN:
        """Learn the conservative reward, and a chain where none was given.

        Parameters
        ----------
        X : list of str, or array-like
        y : array-like of shape (n_samples,)
            Larger is better.

        Returns
        -------
        self : BestOfN
        """
        check_count(self, "n_candidates")
        data = self._start(X, y)
        chain_seed, reward_seed = check_random_state(self.random_state).randint(2**31 - 1, size=2).tolist()
        self.reward_ = self._fit_reward(self.reward, data.X, data.y, reward_seed)
        self.pretrained_ = self._chain(data.X, chain_seed, data.device)
        return self

    @ordinary_torch()
    @torch.no_grad()
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """Draw `n_candidates` designs for each one asked for, and keep the best.

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
        generator, chain = as_generator(random_state), self.pretrained_
        n_draws = n_samples * self.n_candidates
        points, bounds = [], []
        for start in range(0, n_draws, self.batch_size):
            noise = chain.draw_noise(min(self.batch_size, n_draws - start), generator)
            points.append(self.space_.discretise(chain.sample_points(noise)))
            bounds.append(self._standardised_aim(points[-1]))
        best = torch.cat(bounds).reshape(n_samples, self.n_candidates).argmax(dim=1)
        rows = best + self.n_candidates * torch.arange(n_samples, device=best.device)
        return self.space_.decode(torch.cat(points)[rows], self.kind_)
