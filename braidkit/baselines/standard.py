"""StandardFinetuner: fine-tuning toward the reward's mean, without a penalty for what the data do not say."""

from __future__ import annotations

from typing import ClassVar

from braidkit.finetuning import ConservativeDiffusionFinetuner


class StandardFinetuner(ConservativeDiffusionFinetuner):
    """Fine-tune a diffusion model toward designs that score high by the reward's mean (STRL, the paper's comparison).

    The objective is ::

        E[ r_hat(x_0) ] - alpha * sum_t E[ KL( p_t(.|x_t) || p_pre_t(.|x_t) ) ]

    that of ConservativeDiffusionFinetuner with g_hat = 0. Everything else, and every parameter and attribute, is the
    same: a comparison of the two shows what the penalty does and nothing else.

    Notes
    -----
    The KL alone keeps designs where the pretrained model finds them likely. The reward was not measured everywhere
    there. It may be wrong, and maximising it finds the places where it is too high. The more so the fewer the rows, the
    smaller `alpha` and the longer the run.

    The judge is a part of conservatism, too: no checkpoint is kept whose designs a model of other rows finds surely
    worse than others. The paper's STRL has no judge and keeps the checkpoint that its oracle prefers. To see the run to
    its end, set `n_iter_no_change` above 20, the number of evaluations; ``history_`` then holds it all.

    The bound and the penalty in ``history_`` are reported, not aimed at.

    References
    ----------
    Uehara et al. (2024), "Bridging model-based optimization and generative modeling via conservative fine-tuning of
    diffusion models", NeurIPS: section 7 and Figure 2, "STRL".

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit.baselines import StandardFinetuner
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> finetuner = StandardFinetuner(random_state=0).fit(X, X.sum(axis=1))
    >>> bool(finetuner.sample(100, random_state=0).sum(axis=1).mean() > X.sum(axis=1).mean())
    True
    """

    _maximises: ClassVar[str] = "mean"
