"""What the experiment on pictures takes with Stable Diffusion 1.5, counted on networks without weights."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

# The paper's size (Table 4), and steps of the chain.
BATCH, UPDATES, STEPS, DESIGNS = 128, 200, 50, 400
GIB = 2**30


def print_cost(tflops: float) -> None:
    """Print operations of a trajectory, memory, and hours of a run at a speed in TFLOP/s."""
    unet, vae = _networks()
    with torch.device("meta"):
        latents = torch.empty(2, 4, 64, 64, dtype=torch.bfloat16)
        text = torch.empty(2, 77, 768, dtype=torch.bfloat16)
        step = _tera(lambda: unet(latents, torch.zeros((), device="meta"), encoder_hidden_states=text))
        decode = _tera(lambda: vae.decode(latents[:1]))
        states = latents.clone().requires_grad_()
        graph = _kept(lambda: unet(states, torch.zeros((), device="meta"), encoder_hidden_states=text))
        decode_graph = _kept(lambda: vae.decode(latents[:1].requires_grad_()))
    weights = sum(p.numel() for part in (unet, vae) for p in part.parameters()) * 2 / GIB
    # K is uniform on 1, ..., STEPS. With checkpointing a step with gradient is a pass, one more, and a backward pass,
    # which costs as much again because the weights are frozen.
    carried = (STEPS + 1) / 2
    chain = (STEPS - carried) * step + 3 * carried * step + 3 * decode
    print(f"a step of the U-Net with guidance {step:.2f} TFLOP, the VAE's decoding {decode:.2f} TFLOP")
    print(f"weights in bfloat16 {weights:.1f} GiB; graph of a trajectory: a step {graph:.2f} GiB, decoding "
          f"{decode_graph:.2f} GiB")  # fmt: skip
    drawing = STEPS * step + decode
    for name, more in (("no reference", 0.0), ("KL of one step", 3 * step), ("KL of all steps", 3 * carried * step)):
        update = BATCH * (chain + more)
        hours = (UPDATES * update + 20 * 2 * BATCH * drawing) / tflops / 3600
        print(
            f"{name}: {chain + more:.0f} TFLOP a trajectory, {update / 1000:.1f} PFLOP an update of {BATCH}; "
            f"{hours:.1f} h for {UPDATES} updates with 20 evaluations at {tflops:g} TFLOP/s"
        )
    print(f"{DESIGNS} designs: {DESIGNS * drawing / tflops / 60:.1f} min")


def _networks() -> tuple[Any, Any]:
    """U-Net and VAE of Stable Diffusion 1.5, of the shape that its configuration has, without memory."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.utils import logging

    logging.set_verbosity_error()
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
    return unet.to(torch.bfloat16).requires_grad_(False), vae.to(torch.bfloat16).requires_grad_(False)


def _tera(call: Any) -> float:
    """Floating point operations of a call, in units of 10^12."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


def _kept(call: Any) -> float:
    """GiB that autograd keeps for the backward pass of a call."""
    kept: dict[int, tuple[Any, int]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (storage, storage.nbytes())
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = call()
    del result
    return sum(size for _, size in kept.values()) / GIB
