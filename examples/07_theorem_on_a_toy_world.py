r"""
The theorem on a toy world
==========================

Theorem 1 of the paper: the designs of the best fine-tuned model follow

.. math:: \hat\pi(x) \propto e^{(\hat r - \hat g)(x) / \alpha}\, p^{\text{pre}}(x).

On a chain with five states this can be computed and checked.
"""

# %%
# A pretrained chain
# ------------------
# Eight steps. Each step moves at random to a neighbouring state, or stays.

import matplotlib.pyplot as plt
import torch

from braidkit.theory import FiniteChain, gap, objective, optimal_chain, soft_values, tilted

n_states, n_steps = 5, 8
distance = (torch.arange(n_states)[:, None] - torch.arange(n_states)).abs()
step = torch.where(distance <= 1, 1.0, 0.0).double()
step = (step / step.sum(dim=1, keepdim=True)).log()
chain = FiniteChain(torch.full((n_states,), 1 / n_states, dtype=torch.float64).log(), [step] * n_steps)
lower = torch.tensor([0.0, 0.2, 0.1, 0.5, 1.0]).double()  # the lower bound of each design

# %%
# The optimum, and the law that the theorem names
# -----------------------------------------------
# `soft_values` solves the soft Bellman equation (8), and `optimal_chain` gives the policies of equation (7).

alphas = (1.0, 0.3, 0.1)
figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True)
pretrained = chain.log_marginals()[0]
for axis, alpha in zip(axes, alphas, strict=True):
    best = optimal_chain(chain, lower, alpha)
    designs, named = best.log_marginals()[0], tilted(pretrained, lower, alpha)
    assert torch.allclose(designs.exp(), named.exp())
    axis.bar(range(n_states), pretrained.exp(), width=0.8, color="lightgrey", label="pretrained")
    axis.bar(range(n_states), designs.exp(), width=0.5, label="optimal chain")
    axis.plot(range(n_states), named.exp(), "k_", markersize=20, label="theorem 1")
    axis.set(title=f"alpha = {alpha}", xlabel="design")
axes[0].set_ylabel("probability")
axes[0].legend()
plt.show()

# %%
# No other chain does better
# --------------------------
# The largest value of the objective is the soft value before the first step. The gap of any chain is a number of nats.

values, largest = soft_values(chain, lower, 0.3)
best = optimal_chain(chain, lower, 0.3)
print(f"objective of the optimum      {objective(best, chain, lower, 0.3):.4f} = {largest:.4f}")
print(f"objective of the pretrained   {objective(chain, chain, lower, 0.3):.4f}")
print(f"gap of the pretrained         {gap(chain, chain, lower, 0.3):.4f} nats")
