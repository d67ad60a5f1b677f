"""Exact answers on finite chains: tilted laws, soft values, optimal policies, objective and gap.

Every law is a float64 tensor of log-probabilities, with -inf for what cannot happen. Time runs from t = T + 1, the
initial draw of x_T, through the policies t = T, ..., 1 to the design x_0.

References
----------
BRAID (Uehara, Zhao et al., NeurIPS 2024), sections 4 and 5, appendix C.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from braidkit.theory._checks import check_law, check_reward, check_tensor


@dataclass(frozen=True, eq=False)
class FiniteChain:
    """A chain of policies between finite sets of states, as tables.

    Parameters
    ----------
    log_initial : Tensor of shape (S_T,)
        Log-probabilities of x_T (the policy of t = T + 1).
    log_policies : sequence of Tensor of shape (S_t, S_{t-1})
        Entry t - 1 is log p_t(x_{t-1} | x_t), t = 1, ..., T. Levels may differ in size; every row sums to 1.

    Raises
    ------
    ValueError
        If shapes do not fit together or a law does not sum to 1.

    Examples
    --------
    >>> import torch
    >>> policy = torch.tensor([[0.5, 0.5], [0.0, 1.0]]).log()
    >>> chain = FiniteChain(torch.tensor([0.5, 0.5]).log(), [policy])
    >>> chain.log_marginals()[0].exp()
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """

    log_initial: Tensor
    log_policies: Sequence[Tensor]

    def __post_init__(self) -> None:
        """Turn tables into float64 and check them."""
        if not isinstance(self.log_policies, Sequence) or not self.log_policies:
            raise ValueError(f"log_policies must hold at least one policy, in a list; got {self.log_policies!r:.60}.")
        tables = [check_tensor(f"log_policies[{t}]", policy) for t, policy in enumerate(self.log_policies)]
        object.__setattr__(self, "log_initial", check_law("log_initial", self.log_initial, None))
        object.__setattr__(self, "log_policies", tables)
        n_states = len(self.log_initial)
        for t in range(self.n_steps, 0, -1):
            policy = self.log_policies[t - 1]
            if policy.ndim != 2 or len(policy) != n_states:
                raise ValueError(
                    f"log_policies[{t - 1}] must have shape (S_{t}, S_{t - 1}) with S_{t} = {n_states}; "
                    f"got {tuple(policy.shape)}."
                )
            check_law(f"log_policies[{t - 1}]", policy)
            n_states = policy.shape[1]

    @property
    def n_steps(self) -> int:
        """Number T of policies, the initial draw not counted."""
        return len(self.log_policies)

    def log_marginals(self) -> list[Tensor]:
        """Log-probabilities of x_t.

        Returns
        -------
        log_marginals : list of Tensor of shape (S_t,)
            Indexed by t = 0, ..., T.
        """
        marginals = [self.log_initial]
        for policy in reversed(self.log_policies):
            marginals.append((marginals[-1][:, None] + policy).logsumexp(dim=0))
        return marginals[::-1]

    def log_posteriors(self) -> list[Tensor]:
        """Log-probabilities of x_t given x_{t-1}, the posteriors of Theorem 3.

        Returns
        -------
        log_posteriors : list of Tensor of shape (S_{t-1}, S_t)
            Entry t - 1 belongs to t = 1, ..., T. The row of a state x_{t-1} that is never reached is -inf throughout.
        """
        marginals = self.log_marginals()
        posteriors = []
        for t, policy in enumerate(self.log_policies, start=1):
            joint = marginals[t][:, None] + policy  # (S_t, S_{t-1})
            posteriors.append((joint - _finite(marginals[t - 1])).T)
        return posteriors


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) over the last dimension, in nats; inf where p has mass and q has none.

    Parameters
    ----------
    log_p, log_q : Tensor of shape (..., n_states)

    Returns
    -------
    kl : Tensor of shape (...)

    Examples
    --------
    >>> p = torch.tensor([1.0, 0.0], dtype=torch.float64).log()
    >>> q = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    >>> kl_divergence(p, q).item(), kl_divergence(q, p).item()
    (0.693147..., inf)
    """
    check_law("log_p", log_p)
    check_law("log_q", log_q)
    if log_p.shape[-1] != log_q.shape[-1]:
        raise ValueError(f"both laws need as many states; got {log_p.shape[-1]} and {log_q.shape[-1]}.")
    return kl_of_rows(log_p, log_q)


def kl_of_rows(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`kl_divergence` of rows that are known to be laws, or whose value does not count."""
    return torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q), 0.0).sum(dim=-1)


def tilted(log_p: Tensor, reward: Tensor, alpha: float) -> Tensor:
    """The law proportional to ``exp(reward / alpha) p``: (3) for a reward, (5) for its lower bound.

    Parameters
    ----------
    log_p : Tensor of shape (n_states,)
    reward : Tensor of shape (n_states,)
        r_hat, or r_hat - g_hat; -inf forbids a state.
    alpha : float
        In units of the reward, > 0.

    Returns
    -------
    log_tilted : Tensor of shape (n_states,)

    Raises
    ------
    ValueError
        If alpha is not positive, shapes differ, or no state with mass is allowed.

    References
    ----------
    BRAID, equations (3) and (5).
    """
    law = check_tensor("log_p", log_p, None)
    if not (law < torch.inf).all():
        raise ValueError("log_p must be below +inf.")
    logits = law + check_reward(reward, len(law), alpha) / alpha
    if logits.max() == -torch.inf:
        raise ValueError("the reward is -inf wherever the law has mass; allow at least one state.")
    return logits.log_softmax(dim=-1)


def soft_values(chain: FiniteChain, reward: Tensor, alpha: float) -> tuple[list[Tensor], Tensor]:
    """Soft values by the soft Bellman equation (8), backwards from the design.

    ``v_0 = reward``, ``exp(v_t(x_t) / alpha) = sum_x exp(v_{t-1}(x) / alpha) p_t(x | x_t)``.

    Parameters
    ----------
    chain : FiniteChain
        The pretrained chain.
    reward : Tensor of shape (S_0,)
        r_hat - g_hat of every design.
    alpha : float
        In units of the reward, > 0.

    Returns
    -------
    values : list of Tensor of shape (S_t,)
        v_t, indexed by t = 0, ..., T, in units of the reward.
    value : Tensor of shape ()
        v_{T+1} = alpha log C, the largest value of the objective (6); C = E[exp(reward / alpha)] under the chain.

    References
    ----------
    BRAID, equation (8).
    """
    values = [check_reward(reward, chain.log_policies[0].shape[1], alpha)]
    for policy in chain.log_policies:
        values.append(alpha * (values[-1] / alpha + policy).logsumexp(dim=1))
    value = alpha * (values[-1] / alpha + chain.log_initial).logsumexp(dim=0)
    if value == -torch.inf:
        raise ValueError("the reward is -inf on every design that the chain can make; allow at least one.")
    return values, value


def optimal_chain(chain: FiniteChain, reward: Tensor, alpha: float, *, tilt_initial: bool = True) -> FiniteChain:
    """The optimal policies (7) of the objective (6).

    ``p*_t(x | x_t) = exp((v_{t-1}(x) - v_t(x_t)) / alpha) p_t(x | x_t)``, for t = T + 1 as well. From a state whose
    soft value is -inf nothing allowed can be reached, nor is it reached itself; it keeps the pretrained policy.

    Parameters
    ----------
    chain, reward, alpha
        As in `soft_values`.
    tilt_initial : bool, default=True
        False keeps the initial draw: the best that a solver can do that leaves the noise alone. Its designs follow
        the tilted law only if the start is memoryless; see `initial_bias`.

    Returns
    -------
    optimum : FiniteChain

    References
    ----------
    BRAID, equation (14); (7) is the same with a misprinted index.
    """
    values, value = soft_values(chain, reward, alpha)
    policies = []
    for t, policy in enumerate(chain.log_policies, start=1):
        tilted_policy = policy + (values[t - 1] - _finite(values[t])[:, None]) / alpha
        policies.append(torch.where(values[t][:, None] > -torch.inf, tilted_policy, policy))
    initial = chain.log_initial + (values[-1] - value) / alpha if tilt_initial else chain.log_initial
    return FiniteChain(initial, policies)


def path_kl(chain: FiniteChain, other: FiniteChain) -> Tensor:
    """KL between the laws of whole paths, as the sum of the expected KLs of the policies.

    The sum runs over t = T + 1, ..., 1, with x_t drawn from the first chain. It is inf if `chain` makes a move that
    `other` cannot make.

    Parameters
    ----------
    chain, other : FiniteChain
        With equal numbers of states.

    Returns
    -------
    kl : Tensor of shape ()
        Nats.
    """
    marginals = chain.log_marginals()
    total = kl_divergence(chain.log_initial, other.log_initial)
    for t, (policy, twin) in enumerate(zip(chain.log_policies, other.log_policies, strict=True), start=1):
        visited = marginals[t] > -torch.inf
        total = total + torch.where(visited, marginals[t].exp() * kl_divergence(policy, twin), 0.0).sum()
    return total


def objective(chain: FiniteChain, pretrained: FiniteChain, reward: Tensor, alpha: float) -> Tensor:
    """Objective (6): ``E[reward(x_0)] - alpha sum_t E[KL(p_t || p_pre_t)]``, t = T + 1 included.

    Parameters
    ----------
    chain, pretrained : FiniteChain
    reward : Tensor of shape (S_0,)
    alpha : float
        In units of the reward, > 0.

    Returns
    -------
    value : Tensor of shape ()
        In units of the reward; -inf where the chain leaves the support of the pretrained one.

    References
    ----------
    BRAID, equation (6).
    """
    log_p = chain.log_marginals()[0]
    reward = check_reward(reward, len(log_p), alpha)
    return expectation(log_p, reward) - alpha * path_kl(chain, pretrained)


def gap(chain: FiniteChain, pretrained: FiniteChain, reward: Tensor, alpha: float) -> Tensor:
    """Distance to the optimum in nats: path KL to it, which is ``log C - objective / alpha``.

    Parameters
    ----------
    chain, pretrained, reward, alpha
        As in `objective`.

    Returns
    -------
    gap : Tensor of shape ()
        Nats, >= 0. It bounds KL(p_0 || tilted law) from above.
    """
    return path_kl(chain, optimal_chain(pretrained, reward, alpha))


def initial_bias(chain: FiniteChain, reward: Tensor, alpha: float) -> Tensor:
    """The loss, in nats, of a chain whose initial draw is not tilted.

    ``KL(p_pre_{T+1} || p*_{T+1}) = log C - E_pre[v_T] / alpha``: the gap of ``optimal_chain(..., tilt_initial=False)``.

    Parameters
    ----------
    chain, reward, alpha
        As in `soft_values`.

    Returns
    -------
    bias : Tensor of shape ()
        Nats, >= 0; 0 for every reward if x_T is independent of x_0 (a memoryless start).
    """
    return kl_divergence(chain.log_initial, optimal_chain(chain, reward, alpha).log_initial)


def expectation(log_p: Tensor, values: Tensor) -> Tensor:
    """Mean of `values` (n_states,) under the law; states without mass do not count, whatever their value.

    Examples
    --------
    >>> log_p = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64).log()
    >>> expectation(log_p, torch.tensor([4.0, 0.0, float("inf")]).double()).item()
    1.0
    """
    check_tensor("log_p", log_p)
    check_tensor("values", values, *log_p.shape)
    return torch.where(log_p > -torch.inf, log_p.exp() * values, 0.0).sum()


def _finite(x: Tensor) -> Tensor:
    """The same with 0 for -inf, so that -inf minus it stays -inf."""
    return x.masked_fill(x == -torch.inf, 0.0)
