"""Time and memory of an update of a Stable Diffusion pipeline, beside AlignProp's of TRL.

    pip install --no-deps --target elsewhere trl==0.23.1
    PYTHONPATH=.:elsewhere python benchmarks/speed/pipeline.py --repeats 11

TRL 0.23.1 is the last that has the trainer. Its AlignProp runs each step's network again on the way back;
"alignprop, graphs kept" is the same trainer without that. The others are `DirectSolver`, plain or with checkpointing:
"no reference" has no KL, as AlignProp, "one step" the exact KL of one drawn step, and of one before the last K, and
"all steps" that of all K. Pipeline, trajectories, steps and K are the same; the reward is the images' brightness.

Updates are timed in turn, by the processor's seconds. Ratios are geometric means over rounds, with 95 % intervals by
Student's t of their logarithms. "to bare" divides by the time of as many bare passes of U-Net and VAE, measured in the
same round. Memory is what the first update adds to the peak of a process of its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from harness import in_turn, options, peak_gib, processor_seconds, report
from scipy.stats import t as student
from torch import Tensor

from braidkit import PipelineDiffusion
from braidkit.finetuning import DirectSolver, Problem

PROMPT, GUIDANCE = "cat", 3.0
REFERENCES = ("alignprop", "alignprop, graphs kept")
VARIANTS = ("no reference", "one step", "all steps", "no reference, checkpointing", "one step, checkpointing")


class NoReference(DirectSolver):
    """The update without a KL, so that the pretrained network is not run."""

    def _draw_steps(self, generator: torch.Generator) -> dict[str, Any]:
        return {"n_grad_steps": self.truncation, "kl_step": 0}


def brightness(images: Tensor) -> Tensor:
    return images.mean(dim=(1, 2, 3))


def direct(variant: str, arguments: argparse.Namespace) -> Callable[[int], object]:
    """braidkit's update, by its number."""
    kl, _, checkpointing = variant.partition(", ")
    settings = {"truncation": arguments.truncation, "checkpointing": bool(checkpointing)}
    solver = {
        "no reference": NoReference(**settings),
        "one step": DirectSolver(kl_steps="one", **settings),
        "all steps": DirectSolver(**settings),
    }[kl]
    chain = PipelineDiffusion.from_pretrained(
        arguments.pipeline, prompts=[PROMPT], n_steps=arguments.steps, guidance_scale=GUIDANCE, dtype="float32"
    )
    solver.setup(
        Problem(
            chain.trainable_copy(),
            chain,
            brightness,
            alpha=1e-3,
            batch_size=arguments.batch_size,
            learning_rate=1e-4,
            max_grad_norm=1.0,
            seed=0,
        )
    )
    return solver.update


def alignprop(variant: str, arguments: argparse.Namespace) -> Callable[[int], object]:
    """TRL's update, by its number."""
    from accelerate import PartialState

    PartialState()  # TRL logs before it has made one
    from trl.models.modeling_sd_base import DefaultDDPOStableDiffusionPipeline
    from trl.trainer.alignprop_config import AlignPropConfig
    from trl.trainer.alignprop_trainer import AlignPropTrainer

    class GraphsKept(DefaultDDPOStableDiffusionPipeline):
        def rgb_with_grad(self, *given: Any, **settings: Any) -> Any:
            return super().rgb_with_grad(*given, gradient_checkpoint=False, **settings)

    config = AlignPropConfig(
        mixed_precision="no",
        sample_num_steps=arguments.steps,
        sample_guidance_scale=GUIDANCE,
        train_batch_size=arguments.batch_size,
        train_learning_rate=1e-4,
        truncated_backprop_rand=False,
        truncated_backprop_timestep=arguments.steps - arguments.truncation,
        save_freq=10**9,
    )
    kind = GraphsKept if variant.endswith("kept") else DefaultDDPOStableDiffusionPipeline
    trainer = AlignPropTrainer(
        config, lambda images, *_: (brightness(images), {}), lambda: (PROMPT, {}), kind(str(arguments.pipeline))
    )
    trainer.sd_pipeline.sd_pipeline.set_progress_bar_config(disable=True)
    return lambda i: trainer.step(i + 1, i)


def build(variant: str, arguments: argparse.Namespace) -> Callable[[int], object]:
    return (alignprop if variant in REFERENCES else direct)(variant, arguments)


def bare_passes(arguments: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Passes of the pipeline's networks with nothing else, on what an update gives them."""
    chain = PipelineDiffusion.from_pretrained(arguments.pipeline, prompts=[PROMPT], dtype="float32")
    unet, vae = chain.parts.network.module, chain.parts.pipe.vae
    adapters = [parameter for name, parameter in unet.named_parameters() if ".lora_" in name]
    n = arguments.batch_size
    latents = torch.randn(2 * n, *chain.parts.latent_shape)
    text = chain.embeddings[[0] * n + [1] * n]

    def run(gradient: bool, adapted: bool) -> None:
        for parameter in adapters:
            parameter.requires_grad_(adapted)
        with torch.set_grad_enabled(gradient):
            x = latents.clone().requires_grad_(gradient)
            output = unet(x, 1, encoder_hidden_states=text).sample
        if gradient:
            output.sum().backward()
        for parameter in adapters:
            parameter.requires_grad_(False)
            parameter.grad = None

    def decode() -> None:
        vae.decode(latents[:n].clone().requires_grad_()).sample.sum().backward()

    @torch.no_grad()
    def decode_again() -> None:
        vae.decode(latents[:n])

    return {
        "forward": lambda: run(False, False),
        "input gradient": lambda: run(True, False),
        "all gradients": lambda: run(True, True),
        "decoding": decode,
        "decoding again": decode_again,
    }


def passes(variant: str, arguments: argparse.Namespace) -> dict[str, int]:
    """How many of each the update needs."""
    before, suffix = arguments.steps - arguments.truncation, arguments.truncation
    # All but the first step of the suffix have a gradient in their state; a pass of the reference has one alone.
    counts = {"forward": before, "input gradient": 0, "all gradients": suffix, "decoding": 1}
    if variant.startswith(("one", "all")):
        counts["input gradient"] = 1 if variant.startswith("one") else suffix
        if before:  # one step before has gradients, and a reference without
            counts["all gradients"] += 1
    if variant.endswith("checkpointing"):
        counts["decoding again"] = 1
    if variant.endswith("checkpointing") or variant == "alignprop":
        counts["forward"] += counts["all gradients"] + counts["input gradient"]
    return counts


def interval(ratios: list[float]) -> str:
    """Geometric mean and 95 % interval."""
    logs = np.log(ratios)
    half = student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    return " ".join(f"{math.exp(logs.mean() + side * half):.3f}" for side in (0, -1, 1))


def added(variant: str, arguments: argparse.Namespace) -> float:
    """GiB that the first update adds to the peak."""
    torch.set_num_threads(arguments.threads)
    update = build(variant, arguments)
    before = peak_gib()
    update(0)
    return peak_gib() - before


def main() -> None:
    parser = options(__doc__)
    models = os.environ.get("BRAIDKIT_MODELS", "../shared/models")
    parser.add_argument("--pipeline", type=Path, default=Path(models) / "animal-sd")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--truncation", type=int, default=10)
    parser.add_argument("--variants", nargs="+", choices=[*REFERENCES, *VARIANTS], default=[*REFERENCES, *VARIANTS])
    parser.set_defaults(batch_size=8)
    arguments = parser.parse_args()
    del arguments.network, arguments.length
    torch.set_num_threads(arguments.threads)

    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {variant: pool.apply(added, (variant, arguments)) for variant in arguments.variants}
    numbers = dict.fromkeys(arguments.variants, 0)

    def next_update(variant: str, update: Callable[[int], object]) -> None:
        update(numbers[variant])
        numbers[variant] += 1

    updates = {variant: build(variant, arguments) for variant in arguments.variants}
    calls = {
        variant: lambda variant=variant, update=update: next_update(variant, update)
        for variant, update in updates.items()
    }
    times = in_turn(calls | bare_passes(arguments), arguments.repeats, timed=processor_seconds)
    rows: list[dict[str, object]] = []
    for variant in arguments.variants:
        bare = np.sum([n * np.array(times[kind]) for kind, n in passes(variant, arguments).items()], axis=0)
        row: dict[str, object] = {"update": variant, "seconds": median(times[variant])}
        for reference, name in zip(REFERENCES, ("to alignprop", "to graphs kept"), strict=True):
            if reference in times:
                row[name] = interval([a / b for a, b in zip(times[variant], times[reference], strict=True)])
        row["to bare"] = interval(list(np.array(times[variant]) / bare))
        rows.append(row | {"added, GiB": memory[variant]})
    report(arguments, rows)


if __name__ == "__main__":
    main()
