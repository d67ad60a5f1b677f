"""Both sides of Theorem 2, and the finite form of Corollary 1.

Laws on a finite set of designs are tensors of log-probabilities, -inf where there is no mass. The inequalities hold on
the event ``|r - r_hat| <= g_hat`` for every design that the pretrained model or the comparator makes (Assumption 1).

References
----------
BRAID (Uehara, Zhao et al., NeurIPS 2024), section 6, appendices C.2 and D. Y. Abbasi-Yadkori, D. Pal and
C. Szepesvari, "Improved algorithms for linear stochastic bandits", NeurIPS 2011, theorems 1 and 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from braidkit.theory._checks import check_law, check_moment, check_number, check_tensor
from braidkit.theory.finite import expectation, kl_divergence


def soft_value(log_p: Tensor, reward: Tensor, log_pretrained: Tensor, alpha: float) -> Tensor:
    """J_alpha(p) = E_p[r] - alpha KL(p || p_pre), the measure of section 6.

    Parameters
    ----------
    log_p, log_pretrained : Tensor of shape (n_designs,)
    reward : Tensor of shape (n_designs,)
        The true r.
    alpha : float
        In units of the reward.

    Returns
    -------
    value : Tensor of shape ()
        In units of the reward; -inf where p has mass and p_pre has none.
    """
    check_number("alpha", alpha, above=False)
    return expectation(log_p, reward) - alpha * kl_divergence(log_p, log_pretrained)


def soft_regret(log_pi: Tensor, log_p: Tensor, reward: Tensor, log_pretrained: Tensor, alpha: float) -> Tensor:
    """J_alpha(pi) - J_alpha(p), the per-step regret on the left side of Theorem 2.

    Parameters
    ----------
    log_pi, log_p : Tensor of shape (n_designs,)
        The comparator, and the law of the designs to be judged.
    reward, log_pretrained, alpha
        As in `soft_value`.

    Returns
    -------
    regret : Tensor of shape ()
        In units of the reward; below 0 where p is the better of the two.
    """
    return soft_value(log_pi, reward, log_pretrained, alpha) - soft_value(log_p, reward, log_pretrained, alpha)


def concentrability(log_pi: Tensor, log_off: Tensor) -> Tensor:
    """C_pi, the largest ratio pi / p_off over the support of **pi**.

    The paper takes it over the support of p_off; that bounds nothing for a pi with mass outside, where it is inf here.

    Parameters
    ----------
    log_pi, log_off : Tensor of shape (n_designs,)

    Returns
    -------
    c_pi : Tensor of shape ()

    Examples
    --------
    >>> log_off = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
    >>> concentrability(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).log(), log_off).item()
    2.0
    >>> concentrability(torch.tensor([0.9, 0.0, 0.1], dtype=torch.float64).log(), log_off).item()
    inf
    """
    check_law("log_pi", log_pi, None)
    check_law("log_off", log_off, *log_pi.shape)
    support = log_pi > -torch.inf
    return (log_pi[support] - log_off[support]).max().exp()


class RegretBound(NamedTuple):
    """The two right sides of Theorem 2, in units of the reward.

    Attributes
    ----------
    on_comparator : Tensor of shape ()
        2 E_pi[g_hat], plus the shortfall.
    by_coverage : Tensor of shape ()
        2 sqrt(C_pi) sqrt(E_off[g_hat^2]), plus the shortfall; never below the other one.
    """

    on_comparator: Tensor
    by_coverage: Tensor


def regret_bound(log_pi: Tensor, log_off: Tensor, penalty: Tensor, *, shortfall: float = 0.0) -> RegretBound:
    """Right sides of Theorem 2: ``2 E_pi[g_hat] <= 2 sqrt(C_pi) sqrt(E_off[g_hat^2])``.

    Parameters
    ----------
    log_pi, log_off : Tensor of shape (n_designs,)
        The comparator and the law of the offline designs.
    penalty : Tensor of shape (n_designs,)
        g_hat, >= 0.
    shortfall : float, default=0
        Distance of a model p_0 from the optimum: alpha KL(p_0 || tilted law), or alpha times the gap of its chain,
        which is never less.

    Returns
    -------
    bound : RegretBound

    References
    ----------
    BRAID, Theorem 2 and appendix C.2 (whose last line has p_pre for p_off).
    """
    check_number("shortfall", shortfall, above=False)
    if (check_tensor("penalty", penalty, *log_pi.shape) < 0).any():
        raise ValueError("penalty must be at least 0.")
    on_comparator = 2 * expectation(log_pi, penalty)
    c_pi = concentrability(log_pi, log_off)
    by_coverage = c_pi if c_pi == torch.inf else 2 * (c_pi * expectation(log_off, penalty.square())).sqrt()
    return RegretBound(on_comparator + shortfall, by_coverage + shortfall)


def linear_penalty(features: Tensor, data_features: Tensor, lam: float, beta: float) -> Tensor:
    """g_hat(x) = beta sqrt(phi^T (Phi^T Phi + lam I)^-1 phi), the bonus of a linear kernel.

    Parameters
    ----------
    features : Tensor of shape (n_designs, d)
    data_features : Tensor of shape (n, d)
        Phi, of the offline designs.
    lam : float
        > 0, added to the sum Phi^T Phi.
    beta : float
        c sqrt(lam) in terms of Example 1's c.

    Returns
    -------
    penalty : Tensor of shape (n_designs,)

    References
    ----------
    BRAID, Example 1, in weight space.
    """
    check_number("beta", beta, above=False)
    check_tensor("features", features, None, None)
    root = torch.linalg.cholesky(_regularised_gram(data_features, lam))
    whitened = torch.linalg.solve_triangular(root, features.double().T, upper=False)  # (d, n_designs)
    return beta * whitened.square().sum(dim=0).sqrt()


def relative_condition_number(pi_moment: Tensor, off_moment: Tensor, *, rtol: float = 1e-10) -> Tensor:
    """Cbar_pi = sup_k (k^T M k) / (k^T S k), the largest generalised eigenvalue of two second moments.

    It is finite where pi's features lie in the range of S, also for designs that the offline data lack, and never above
    C_pi.

    Parameters
    ----------
    pi_moment : Tensor of shape (d, d)
        M = E_pi[phi phi^T].
    off_moment : Tensor of shape (d, d)
        S = E_off[phi phi^T].
    rtol : float, default=1e-10
        Eigenvalues of S below `rtol` times the largest count as zero; so does a share of M below `rtol` outside the
        range of S.

    Returns
    -------
    c_bar : Tensor of shape ()
        inf if M reaches outside the range of S.

    References
    ----------
    BRAID, Corollary 1.

    Examples
    --------
    >>> S = torch.diag(torch.tensor([1.0, 0.0]))
    >>> relative_condition_number(torch.diag(torch.tensor([3.0, 0.0])), S).item()
    3.0
    >>> relative_condition_number(torch.diag(torch.tensor([3.0, 1.0])), S).item()
    inf
    """
    pi_moment, off_moment = check_moment("pi_moment", pi_moment), check_moment("off_moment", off_moment)
    if pi_moment.shape != off_moment.shape:
        raise ValueError(f"both moments need one shape; got {tuple(pi_moment.shape)} and {tuple(off_moment.shape)}.")
    eigenvalues, vectors = torch.linalg.eigh(off_moment)
    inside = eigenvalues > rtol * eigenvalues[-1]
    null = vectors[:, ~inside]
    if torch.trace(null.T @ pi_moment @ null) > rtol * torch.trace(pi_moment):
        return torch.tensor(math.inf, dtype=torch.float64)
    whitening = vectors[:, inside] / eigenvalues[inside].sqrt()
    return torch.linalg.eigvalsh(whitening.T @ pi_moment @ whitening)[-1]


def effective_dimension(off_moment: Tensor, lam: float, n: int) -> Tensor:
    """d_eff = tr(S (S + (lam / n) I)^-1), the number of directions that n rows determine.

    Parameters
    ----------
    off_moment : Tensor of shape (d, d)
        S = (1/n) Phi^T Phi.
    lam : float
        > 0, added to n S.
    n : int
        Number of offline rows.

    Returns
    -------
    d_eff : Tensor of shape ()
        Between 0 and d.
    """
    check_number("lam", lam)
    check_number("n", n, whole=True)
    eigenvalues = torch.linalg.eigvalsh(check_moment("off_moment", off_moment)).clamp(min=0)
    return (eigenvalues / (eigenvalues + lam / n)).sum()


def corollary_bound(pi_moment: Tensor, off_moment: Tensor, lam: float, n: int, beta: float) -> Tensor:
    """Finite form of Corollary 1: regret <= 2 beta sqrt(Cbar_pi d_eff / n).

    Parameters
    ----------
    pi_moment, off_moment, lam, n
        As in `relative_condition_number` and `effective_dimension`; S is the empirical moment of the n rows.
    beta : float
        Factor of the penalty, as in `linear_penalty`.

    Returns
    -------
    bound : Tensor of shape ()
        In units of the reward.

    References
    ----------
    BRAID, Corollary 1. With the empirical p_off, E_off[g_hat^2] = beta^2 d_eff / n: this is Theorem 2 with Cbar_pi in
    place of C_pi.
    """
    check_number("beta", beta, above=False)
    check_number("n", n, whole=True)
    c_bar = relative_condition_number(pi_moment, off_moment)
    return 2 * beta * (c_bar * effective_dimension(off_moment, lam, n) / n).sqrt()


def self_normalised_beta(
    data_features: Tensor, lam: float, noise_scale: float, norm_bound: float, delta: float
) -> Tensor:
    """A beta for which the linear penalty is calibrated at all designs at once, with probability 1 - delta.

    ``beta = R sqrt(log det(I + Phi^T Phi / lam) + 2 log(1 / delta)) + sqrt(lam) B``. The estimator's c is
    ``beta / sqrt(lam)``.

    Parameters
    ----------
    data_features : Tensor of shape (n, d)
        Phi. It must not have been learned from the same measurements.
    lam : float
        > 0.
    noise_scale : float
        R: the noise of the measurements is R-sub-Gaussian.
    norm_bound : float
        An upper bound B of the norm of the true weights theta.
    delta : float
        In (0, 1).

    Returns
    -------
    beta : Tensor of shape ()
        In units of the measurements.

    References
    ----------
    Abbasi-Yadkori, Pal and Szepesvari (2011), theorem 2. It takes the place of BRAID's (D.2), whose C(delta) has an
    unspecified constant.
    """
    check_number("delta", delta)
    if delta >= 1:
        raise ValueError(f"`delta` must be in (0, 1); got {delta}.")
    check_number("noise_scale", noise_scale, above=False)
    check_number("norm_bound", norm_bound, above=False)
    log_det = torch.linalg.slogdet(_regularised_gram(data_features, lam) / lam).logabsdet
    return noise_scale * (log_det + 2 * math.log(1 / delta)).sqrt() + math.sqrt(lam) * norm_bound


def _regularised_gram(data_features: Tensor, lam: float) -> Tensor:
    """Phi^T Phi + lam I."""
    check_number("lam", lam)
    phi = check_tensor("data_features", data_features, None, None)
    return phi.T @ phi + lam * torch.eye(phi.shape[1], dtype=torch.float64)
