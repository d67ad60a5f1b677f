"""
Reading a report
================

`report` writes one HTML page about a run. This example shows its figures one by one, and how to read them.
"""

# %%
# A small run
# -----------

import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt

from braidkit import ConservativeDiffusionFinetuner, MaskedDiffusion, SequenceSpace, make_utr
from braidkit.evaluation import (
    CalibrationDisplay,
    RewardDistributionDisplay,
    TrainingCurveDisplay,
    design_table,
    report,
)

X, y = make_utr(300, length=24, random_state=1)
pretrained = MaskedDiffusion(SequenceSpace("DNA", 24), n_steps=8).fit(X, max_iter=50, random_state=0)
finetuner = ConservativeDiffusionFinetuner(
    pretrained, alpha=0.1, max_iter=20, batch_size=32, learning_rate=3e-3, random_state=0
).fit(X, y)

# %%
# The training curve
# ------------------
# The lower bound should rise. The judge is a second reward that was never optimised. If the judge falls while the bound
# rises, the run exploits errors of the reward. The vertical line is the checkpoint that was kept.

TrainingCurveDisplay.from_estimator(finetuner, name="load").plot()
plt.show()

# %%
# The rewards
# -----------
# Designs should lie to the right of the data. Designs far beyond every measurement are an extrapolation: be careful.

RewardDistributionDisplay.from_estimator(finetuner, X, y, random_state=0).plot()
plt.show()

# %%
# The calibration
# ---------------
# The share of unseen rows whose measurement lies above the bound. With the default `c=0.5` the
# penalty is half a standard deviation: for 69 % if errors are normal and measurements without noise, and for fewer with
# noise. Ask for `c="calibrated"` if the bound must hold.

CalibrationDisplay.from_estimator(finetuner, X, y, random_state=0).plot()
plt.show()

# %%
# The designs, and the page
# -------------------------
# The warnings of the table stand at the top of the page.

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    designs = design_table(finetuner, X, y, n_designs=10, n_candidates=100, random_state=0)
for sentence in designs.attrs["warnings"]:
    print("-", sentence)

page = Path(tempfile.mkdtemp()) / "report.html"
report(finetuner, X, y, path=page, designs=designs, name="load", random_state=0)
print(f"{page.name}: {page.stat().st_size / 1024:.0f} KiB")

designs[["sequence", "lower", "judge", "distance", "flags"]].head()
