"""
Choosing alpha and c
====================

`alpha` is the price of leaving the pretrained model. `c` is the size of the penalty. On a space of 4,096 designs the
best possible fine-tuning is known exactly for every choice, and so is its true value.
"""

# %%
# A small world with a known truth
# --------------------------------

import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch

from braidkit import GPBonusReward
from braidkit.theory import kl_divergence, tilted

everything = ["".join(letters) for letters in itertools.product("ACGT", repeat=6)]
rng = np.random.default_rng(1)
pairs = rng.normal(size=(5, 4, 4))  # the truth: a value for each pair of neighbours
tokens = np.array([["ACGT".index(letter) for letter in row] for row in everything])
truth = sum(pairs[i][tokens[:, i], tokens[:, i + 1]] for i in range(5)) / np.sqrt(5)

rows = rng.choice(len(everything), size=120, replace=False)
X, y = [everything[i] for i in rows], truth[rows] + 0.3 * rng.normal(size=120)

# %%
# One reward for all choices
# --------------------------
# The reward's deviation does not depend on `c`, so we fit once and scale the penalty.

reward = GPBonusReward(c=1.0, random_state=0).fit(X, y)
mean = reward.predict(everything)
deviation = mean - reward.predict_lower(everything)

# The pretrained model has no preference: all designs are equally likely.
log_pretrained = torch.full((len(everything),), -np.log(len(everything)))

# %%
# The optimum of fine-tuning
# --------------------------
# Its designs follow ``pretrained(x) exp(lower(x) / alpha)``, scaled to sum to one. `alpha` counts standard deviations
# of y.

alphas = np.geomspace(0.02, 2, 15)
scale = y.std()
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
for c in (0.0, 0.5, 2.0):
    lower = torch.tensor(mean - c * deviation)
    laws = [tilted(log_pretrained, lower / scale, alpha) for alpha in alphas]
    left.plot(alphas, [(law.exp() * torch.tensor(truth)).sum() for law in laws], label=f"c = {c}")
    right.plot(alphas, [kl_divergence(law, log_pretrained) for law in laws], label=f"c = {c}")
left.axhline(y.max(), color="grey", linestyle=":", label="best measurement")
left.set(xscale="log", xlabel="alpha", ylabel="true mean of the designs")
right.set(xscale="log", xlabel="alpha", ylabel="KL to the pretrained model (nats)")
left.legend()
figure.tight_layout()
plt.show()
