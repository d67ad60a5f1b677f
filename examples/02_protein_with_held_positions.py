"""
A protein with held positions
=============================

Only three positions of a protein may change. All 8,000 designs can be listed, so the optimum is computed exactly and no
network is trained for the design model.
"""

# %%
# The data
# --------
# A template holds letters. "_" marks the positions that may change. Our assay prefers hydrophobic residues at the first
# and the last free position, and a small one between them.

import matplotlib.pyplot as plt
import numpy as np

from braidkit import ConservativeDiffusionFinetuner, SequenceSpace
from braidkit.evaluation import SequenceLogoDisplay

TEMPLATE = "MKTAY_AKQ__GLIEVQ"
free = [i for i, letter in enumerate(TEMPLATE) if letter == "_"]
HYDROPHOBIC = dict(zip("IVLFCMAGTSWYPHEQDNKR", np.linspace(1, -1, 20), strict=True))


def assay(sequence):
    """The true value of a sequence."""
    first, middle, last = (sequence[i] for i in free)
    return HYDROPHOBIC[first] + HYDROPHOBIC[last] + (1.0 if middle in "GAS" else 0.0)


rng = np.random.default_rng(0)
space = SequenceSpace("protein", template=TEMPLATE)
X = []
for letters in rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=(200, 3)):
    row = list(TEMPLATE)
    for position, letter in zip(free, letters, strict=True):
        row[position] = letter
    X.append("".join(row))
y = np.array([assay(row) for row in X]) + 0.2 * rng.normal(size=len(X))

# %%
# Fit and draw
# ------------
# The finetuner sees that the space is small and lists it.

finetuner = ConservativeDiffusionFinetuner(space=space, alpha=0.1, random_state=0).fit(X, y)
designs = finetuner.sample(200, random_state=0)
print(type(finetuner.model_).__name__)
print(designs[:3])
for name, rows in {"measured": X, "designs": designs}.items():
    print(f"{name}: true mean {np.mean([assay(row) for row in rows]):.2f}")

# %%
# Every design has the template's letters. The logo shows the free positions of the designs: the letters that the assay
# prefers have become frequent. Measured letters were drawn uniformly.

SequenceLogoDisplay.from_sequences(
    ["".join(row[i] for i in free) for row in designs], letters="ACDEFGHIKLMNPQRSTVWY"
).plot()
plt.show()
