"""
5'UTRs from a table
===================

A table of sequences and measurements goes in, designs come out. The sequences are generated, so we can look at the true
value of the designs at the end.
"""

# %%
# Read the table
# --------------
# `read_table` checks every row, and says what it dropped.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from braidkit import ConservativeDiffusionFinetuner, MaskedDiffusion, make_utr, read_table

file = Path(tempfile.mkdtemp()) / "mpra.csv"
X, y = make_utr(300, random_state=0)
pd.DataFrame({"seq": X, "load": y}).to_csv(file, index=False)

table = read_table(file, sequence="seq", target="load")
print(table.describe())

# %%
# Train a pretrained model, and fine-tune it
# ------------------------------------------
# With `pretrained=None` the finetuner would train a model by itself. We train one here with few updates to save time.
# Sequences of 5'UTRs have forbidden neighbours; the model learns from the table which ones never occur.

pretrained = MaskedDiffusion(table.space, n_steps=25).fit(table.sequences, max_iter=20, random_state=0)
finetuner = ConservativeDiffusionFinetuner(pretrained, max_iter=20, batch_size=64, random_state=0)
finetuner.fit(table.sequences, table.y)
print(f"kept the checkpoint of update {finetuner.best_iter_}")
print(
    f"on unseen rows: R2 {finetuner.reward_check_['r2']:.2f}, bound holds for {finetuner.reward_check_['overall']:.0%}"
)

# %%
# Draw designs
# ------------
# The landscape knows the true load of any sequence, and which sequences are valid. You do not have this function for
# your own data. From 300 rows no model can learn all rules, so the pretrained model breaks some of them, and so do the
# designs. More rows, or a pretrained model of natural sequences, help.

from braidkit.evaluation import RewardDistributionDisplay
from braidkit.oracles import UTRLandscape

truth = UTRLandscape()
groups = {
    "measured": list(X),
    "pretrained": pretrained.sample(200, random_state=0),
    "designs": finetuner.sample(200, random_state=0),
}
for name, rows in groups.items():
    print(f"{name:>10}: true mean load {truth.predict(rows).mean():.2f}, valid {truth.is_valid(rows).mean():.0%}")

RewardDistributionDisplay.from_values(
    {name: truth.predict(rows) for name, rows in groups.items()}, name="true mean ribosome load"
).plot()
plt.show()
