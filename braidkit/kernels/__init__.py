"""Fused kernels in Triton and their versions in plain torch, chosen by device.

Each function runs in plain torch on a CPU and in float64. On a CUDA device it runs as one Triton kernel, forwards and
backwards, if Triton (``pip install "braidkit[gpu]"``) and a C compiler are installed, and in plain torch if not.
"""

from braidkit.kernels._backend import has_kernels
from braidkit.kernels.bridge import bridge_step
from braidkit.kernels.gaussian import gaussian_step
from braidkit.kernels.posterior import posterior_variance
from braidkit.kernels.simplex import simplex_step

__all__ = ["bridge_step", "gaussian_step", "has_kernels", "posterior_variance", "simplex_step"]
