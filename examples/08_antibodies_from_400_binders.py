"""
Antibodies from 400 binders
===========================

A language model of antibodies is the pretrained model. Measured variants of trastuzumab teach the reward. Five
positions of the third CDR are designed, and everything else is held.
"""

# %%
# The data and the model
# ----------------------
# The affinities to HER2 are those of Shanehsazzadeh et al. (2023), the table ``spr-controls.csv`` of their repository
# ``AbSciBio/unlocking-de-novo-antibody-design``, with the heavy chain's variable domain added as ``sequence``. The
# model is AntiBERTy (Ruffolo et al., 2021), a BERT with one token a residue, as a directory of transformers. Name the
# folders of both by ``BRAIDKIT_DATA`` and ``BRAIDKIT_MODELS``, or put your own table and model in their place.

import copy
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from braidkit import GPBonusReward, MaskedDiffusion, SequenceSpace
from braidkit.baselines import SMCSampler
from braidkit.evaluation import SequenceLogoDisplay

torch.set_num_threads(1)
data, models = (Path(os.environ.get(name, ".")) for name in ("BRAIDKIT_DATA", "BRAIDKIT_MODELS"))
table = pd.read_csv(data / "antibody_her2_spr.csv.gz").dropna(subset="minus_log10_kd")
table = table[(table["cdr1"] == "GFNIKDTY") & (table["cdr2"] == "IYPTNGYT") & (table["cdr3"].str.len() == 13)]
X, y = table["sequence"].tolist(), table["minus_log10_kd"].to_numpy()
trastuzumab = table.loc[table["cdr3"] == "SRWGGDGFYAMDY", "sequence"].item()
print(f"{len(X)} binders, -log10 of KD from {y.min():.1f} to {y.max():.1f}; trastuzumab {y[X.index(trastuzumab)]:.1f}")

# %%
# The template has "_" where a design may vary: the five letters in the middle of CDR3.

start = trastuzumab.index("GGDGFYAMDY")
free = range(start, start + 5)
space = SequenceSpace("protein", template=trastuzumab[:start] + "_____" + trastuzumab[start + 5 :])
chain = MaskedDiffusion.from_masked_lm(models / "antiberty", space, dtype="bfloat16")

# %%
# What the model knows
# --------------------
# Nats a letter of measured binders, with one and with all five letters hidden. Uniform letters have log 20 = 3.0. If
# these were no better, the language model would be of no use as a prior.

some = X[::10]
for share in (0.2, 1.0):
    print(f"{share:.0%} hidden: {chain.cross_entropy(some, share):.2f} nats a letter")

# %%
# Adapt it to the sequences
# -------------------------
# The model knows antibodies in general. Its adapter can learn from the measured sequences, before any measurement is
# used: in the benchmark on the page about language models this was worth more than all else. The few updates keep it
# near what it knew.

adapted = copy.deepcopy(chain).fit(X, max_iter=15, batch_size=16, learning_rate=5e-3, random_state=0)
print(f"adapted, 100% hidden: {adapted.cross_entropy(some, 1.0):.2f} nats a letter")

# %%
# Tilt it by a reward
# -------------------
# The best fine-tuned model draws from :math:`p^{\text{pre}}(x)\, e^{\text{lower}(x) / \alpha}`. A particle sampler
# does so without training, with some hundred passes of the language model; this whole example takes two minutes of one
# core. How small alpha may be depends on how many particles there are: too small a value leaves a few particles, and
# as few different designs. ``alpha="auto"`` takes the smallest value at which half of the particles count. For a
# smaller one, raise ``n_particles``. For a model to keep, pass the chain to ``ConservativeDiffusionFinetuner``, on a
# GPU.

sampler = SMCSampler(adapted, alpha="auto", n_particles=64, random_state=0).fit(X, y)
designs = sampler.sample(64, random_state=0)
print(f"alpha {sampler.alpha_:.2f}; effective share of the particles, at least: {sampler.ess_.min():.2f}")

# %%
# Designs
# -------
# A second reward, of all rows and another seed, says what the designs may be worth. It learned from the same
# measurements as the first, so it is no laboratory.

groups = {
    f"{name} model": model.sample(64, random_state=0) for name, model in (("published", chain), ("adapted", adapted))
}
groups["designs"] = designs
judge = GPBonusReward(space=space, random_state=1).fit(X, y)
print(f"measured binders: mean {y.mean():.2f}")
for name, rows in groups.items():
    known = [row for row in set(rows) if row in X]
    print(f"{name}: predicted {np.mean(judge.predict(rows)):.2f}, {len(set(rows))} different, {len(known)} measured")

figure, axes = plt.subplots(1, 4, figsize=(12, 2.5), layout="constrained")
for axis, (name, rows) in zip(axes, ({"measured": X} | groups).items(), strict=True):
    letters = ["".join(row[i] for i in free) for row in rows]
    SequenceLogoDisplay.from_sequences(letters, letters="ACDEFGHIKLMNPQRSTVWY").plot(axis)
    axis.set_title(name)
plt.show()

# %%
# The licence of a model may also cover what it makes: read it before you order its designs.
