"""
A regressor of your own
=======================

Any scikit-learn regressor can be the reward, if the solver needs no gradient. Here it is a random forest, with a lower
bound made from its trees.
"""

# %%
# A forest with a lower bound
# ---------------------------
# A method `predict_lower` makes the reward conservative. Without it, only the KL is.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import RandomForestRegressor

from braidkit import ConservativeDiffusionFinetuner, DesignPipeline, MaskedDiffusion, SequenceEncoder, SequenceSpace
from braidkit.datasets import make_ehrlich
from braidkit.oracles import EhrlichLandscape


class CautiousForest(RandomForestRegressor):
    """A forest whose lower bound is a low quantile of its trees' predictions."""

    def predict_lower(self, X):
        return np.quantile([tree.predict(X) for tree in self.estimators_], 0.2, axis=0)


landscape = EhrlichLandscape("DNA", length=10, n_motifs=2, motif_length=3, random_state=0)
X, y = make_ehrlich(400, landscape=landscape, noise=0.05, random_state=0)
forest = DesignPipeline([("encode", SequenceEncoder()), ("forest", CautiousForest(n_estimators=30, random_state=0))])

# %%
# Fine-tune with trajectory balance
# ---------------------------------
# An Ehrlich function is zero for sequences with forbidden neighbours. The masked chain learns from the data which
# neighbours never occur.

pretrained = MaskedDiffusion(SequenceSpace("DNA", 10)).fit(X, max_iter=100, random_state=0)
finetuner = ConservativeDiffusionFinetuner(
    pretrained,
    reward=forest,
    solver="trajectory_balance",
    alpha=0.1,
    max_iter=40,
    batch_size=64,
    learning_rate=5e-3,
    random_state=0,
).fit(X, y)

# %%
# The result
# ----------

groups = {
    "measured": list(X),
    "pretrained": pretrained.sample(300, random_state=0),
    "designs": finetuner.sample(300, random_state=0),
}
values = {name: landscape.predict(rows) for name, rows in groups.items()}
for name, rows in groups.items():
    print(f"{name:>10}: true mean {values[name].mean():.2f}, valid {landscape.is_valid(rows).mean():.0%}")
plt.hist(values.values(), bins=np.linspace(0, 1, 11), density=True, label=list(values))
plt.xlabel("true value")
plt.ylabel("density")
plt.legend()
plt.show()
