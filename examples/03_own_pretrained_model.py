"""
An own pretrained model
=======================

Natural designs without measurements are often plentiful. Train the diffusion model on those, and the reward on the few
that were measured.
"""

# %%
# Many natural designs, few measurements
# --------------------------------------
# A design has two properties. Natural designs keep them nearly equal. Only designs with a small first property were
# measured, and the measurement is the first property with noise. Nothing in it says that the two belong together: the
# pretrained model has to know.

import matplotlib.pyplot as plt
import numpy as np

from braidkit import ConservativeDiffusionFinetuner, GaussianDiffusion, VectorSpace

rng = np.random.default_rng(0)
natural = rng.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], size=2_000)
measured = natural[natural[:, 0] < 0.5][:200]
y = measured[:, 0] + 0.2 * rng.normal(size=len(measured))

# %%
# Train, and fine-tune
# --------------------

pretrained = GaussianDiffusion(VectorSpace.from_data(natural)).fit(natural, max_iter=500, random_state=0)
finetuner = ConservativeDiffusionFinetuner(
    pretrained, alpha=0.7, max_iter=40, batch_size=64, learning_rate=3e-3, random_state=0
).fit(measured, y)

# %%
# The designs moved to larger values of the first property. They kept the two properties equal, because the KL holds
# them to the pretrained model.

panels = {
    "natural (orange: measured)": natural[:500],
    "pretrained model": pretrained.sample(500, random_state=0),
    "designs": finetuner.sample(500, random_state=0),
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True)
for axis, (name, points) in zip(axes, panels.items(), strict=True):
    axis.scatter(*points.T, s=3)
    axis.set_title(name)
    axis.set_aspect("equal")
axes[0].scatter(*measured.T, s=3, color="tab:orange")
plt.show()
print(f"measured: mean of the first property {measured[:, 0].mean():.2f}")
print(f"designs: means of both properties {panels['designs'].mean(axis=0).round(2)}")

# %%
# The finetuner did not change `pretrained`. The fine-tuned model is a pretrained model itself:

finetuner.model_.sample(2, random_state=0)
