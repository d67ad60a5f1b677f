"""
Images
======

Small images need no published pipeline: a diffusion model of pixels is trained on them. Here each image shows one disc,
and a larger disc has a higher score. The example needs the extra ``images``.
"""

# %%
# Images and scores
# -----------------
# Images are arrays of numbers from 0 to 1, or of whole numbers from 0 to 255. Grey ones have the shape (n, height,
# width). Only small discs were measured.

import matplotlib.pyplot as plt
import numpy as np

from braidkit import ConservativeDiffusionFinetuner, ImageSpace, PixelDiffusion
from braidkit.evaluation import ImageGridDisplay


def discs(radii, rng):
    """Images of 12 x 12 pixels, each with one disc at a random place."""
    rows, columns = np.mgrid[:12, :12]
    centres = rng.uniform(4, 7, size=(len(radii), 2, 1, 1))
    distance = np.hypot(rows - centres[:, 0], columns - centres[:, 1])
    return np.clip(radii[:, None, None] + 0.5 - distance, 0, 1)


rng = np.random.default_rng(0)
images = discs(rng.uniform(1, 3.5, size=800), rng)
measured = images[images.mean(axis=(1, 2)) < 0.16]
scores = measured.mean(axis=(1, 2)) + 0.01 * rng.normal(size=len(measured))

# %%
# Train, and fine-tune
# --------------------
# Images without scores are useful too: the pretrained model learns from all images. With ``pretrained=None`` the
# finetuner would train one on the measured images. A small learning rate keeps the first updates close to the
# pretrained model: look at their KL with ``verbose=2``.

pretrained = PixelDiffusion(ImageSpace(12, 12, 1), n_steps=10, n_channels=8).fit(images, max_iter=200, random_state=0)
finetuner = ConservativeDiffusionFinetuner(
    pretrained, max_iter=20, batch_size=16, learning_rate=1e-4, random_state=0
).fit(measured, scores)

# %%
# Look at the designs
# -------------------
# Look at images before you trust a number: a reward can like images that show nothing any more. The numbers are
# predictions of the judge.

ImageGridDisplay.from_estimator(finetuner, measured, scores, random_state=0).plot()
plt.show()

# %%
# A pipeline of diffusers is fine-tuned in the same way: ``PipelineDiffusion.from_pretrained`` reads its directory.

groups = {
    "measured": measured,
    "pretrained": pretrained.sample(200, random_state=1),
    "designs": finetuner.sample(200, random_state=1),
}
for name, rows in groups.items():
    print(f"{name:10s} mean brightness {rows.mean():.3f}")
