"""An oracle trained on measurements: the Enformer's architecture with a regression head, as the paper judges by."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from braidkit import persistence
from braidkit.data import read_new_designs, read_training_data
from braidkit.exceptions import CheckpointError, InvalidDesignError
from braidkit.networks.attention import AttentionBlock, PositionalPool, SoftmaxPool
from braidkit.networks.dilated_conv import DilatedConv1d
from braidkit.oracles._base import Oracle, hash_rows, refuse_shared_rows
from braidkit.parameters import (
    check_choice,
    check_count,
    check_fraction,
    check_positive,
    check_random_state,
    resolve_device,
)
from braidkit.spaces import Points, SequenceSpace, space_from_config
from braidkit.torch_state import ordinary_torch, seeded
from braidkit.training import fit_supervised

# Channels after the stem and after each further stage of the tower; the key width, and so on, of each head.
SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"widths": (32, 48), "n_blocks": 1, "n_heads": 4, "key_width": 16, "dropout": 0.2},
    "paper": {
        "widths": (768, 768, 896, 1024, 1152, 1280, 1536),
        "n_blocks": 11,
        "n_heads": 8,
        "key_width": 64,
        "dropout": 0.4,
    },
}
# Pooling goes on while there are more positions than these.
MAX_POSITIONS = 64
_BATCH = 1024
# The best of several weights on fewer rows than these would be picked by chance.
_MIN_VALIDATION_ROWS = 5
# Evaluations (there are 20) without improvement: few would end training before the falling learning rate pays.
_PATIENCE = 10
# What `save` writes beside the weights.
_FITTED = ("y_mean_", "y_std_", "n_iter_", "validation_curve_", "validation_r2_", "n_features_in_")


class ChannelNorm(nn.BatchNorm1d):
    """Batch normalisation of each channel, for channels that come last."""

    def forward(self, h: Tensor) -> Tensor:
        """(n, L, channels) to the same."""
        return super().forward(h.flatten(0, 1)).view_as(h)


class ConvBlock(nn.Sequential):
    """Normalise, GELU, convolve: (n, L, before) to (n, L, after)."""

    def __init__(self, before: int, after: int, kernel_size: int) -> None:
        super().__init__(ChannelNorm(before), nn.GELU(), DilatedConv1d(before, after, kernel_size))


class ConvStage(nn.Module):
    """A convolution, a residual pointwise block, and attention pooling, if any: (n, L, before) to (n, L', after)."""

    def __init__(self, first: nn.Module, channels: int, *, pools: bool) -> None:
        super().__init__()
        self.first = first
        self.pointwise = ConvBlock(channels, channels, 1)
        self.pool = SoftmaxPool(channels) if pools else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        h = self.first(h)
        return self.pool(h + self.pointwise(h))


class EnformerNetwork(nn.Module):
    """Convolution tower, transformer blocks, attention pooling and a regression head.

    Parameters
    ----------
    length, n_letters : int
    widths : sequence of int
        Channels after the stem and after each stage of the tower.
    n_blocks, n_heads, key_width : int
        Width of the transformer.
    dropout : float
    """

    def __init__(
        self,
        length: int,
        n_letters: int,
        *,
        widths: tuple[int, ...],
        n_blocks: int,
        n_heads: int,
        key_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        stages = []
        for i, width in enumerate(widths):
            first = ConvBlock(widths[i - 1], width, 5) if i else DilatedConv1d(n_letters, width, 15)
            pools = length > MAX_POSITIONS
            stages.append(ConvStage(first, width, pools=pools))
            length = (length + 1) // 2 if pools else length
        width = widths[-1]
        blocks = [
            AttentionBlock(length, width, n_heads=n_heads, key_width=key_width, dropout=dropout)
            for _ in range(n_blocks)
        ]
        self.tower = nn.Sequential(*stages)
        self.place = nn.Parameter(0.3 * torch.randn(length, width))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            ConvBlock(width, 2 * width, 1),
            nn.Dropout(dropout / 8),
            nn.GELU(),
            PositionalPool(length, 2 * width, 2 * width),
            nn.Linear(2 * width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Points (n, length, n_letters) to values (n,)."""
        return self.head(self.blocks(self.tower(x) + self.place))[:, 0]


class EnformerOracle(RegressorMixin, Oracle, BaseEstimator):
    """A regressor of sequences that judges designs: the Enformer's architecture at the width of the machine.

    Convolutions with attention pooling, transformer blocks, and, where the Enformer predicts tracks, a regression head
    on a pooled vector (as in the paper's appendix E.1.1). Train it on the oracle's share of `offline_split` and on
    nothing else; it keeps digests of its training rows, and `check_disjoint` and `compare` refuse data that share any.

    Four things differ from the published network. Pooling ends at 64 positions or fewer, since designs have 50 or 200
    letters rather than 196,608. The attention's bias is learned for each offset, not expanded in a basis. Attention
    weights have no dropout of their own. And the blocks and the last pooling know each position, as the distance to the
    end of a 5'UTR decides the reading frame.

    Parameters
    ----------
    size : {"cpu", "paper"}, default="cpu"
        "paper": the Enformer's widths, 768 to 1536 channels and 11 transformer blocks, for a large GPU and much data;
        "cpu": 48 channels and one block.
    space : SequenceSpace, optional
        By default inferred from the sequences.
    max_iter : int or "auto", default="auto"
        Most optimiser updates; "auto" grows with the number of rows.
    batch_size : int, default=128
    learning_rate : float, default=1e-3
    validation_fraction : float, default=0.1
        Share of the rows held out to keep the best weights, and to stop when they have long not improved.
    device : str, default="auto"
    random_state : int, RandomState or None
    verbose : int, default=0
        Show progress if not 0.

    Attributes
    ----------
    space_ : SequenceSpace
    row_hashes_ : ndarray of shape (n_different_rows,), uint64
        Digests of all rows that `fit` saw, ascending.
    validation_curve_ : list of float
        Mean squared error on the held-out rows at each of up to 20 evaluations, in units of y's variance.
    validation_r2_ : float
        R2 on the held-out rows, which also chose the weights.
    n_iter_ : int
    n_features_in_ : int

    References
    ----------
    Avsec et al. (2021), "Effective gene expression prediction from sequence by integrating long-range interactions",
    Nat. Methods 18:1196.

    Examples
    --------
    >>> from braidkit import make_utr
    >>> from braidkit.oracles import EnformerOracle
    >>> X, y = make_utr(200, random_state=0)
    >>> oracle = EnformerOracle(max_iter=5, random_state=0).fit(X, y)
    >>> oracle.predict(X[:3]).shape
    (3,)
    """

    space_: SequenceSpace

    def __init__(
        self,
        size: str = "cpu",
        *,
        space: SequenceSpace | None = None,
        max_iter: int | str = "auto",
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        validation_fraction: float = 0.1,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.size = size
        self.space = space
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @ordinary_torch()
    def fit(self, X: Any, y: Any) -> EnformerOracle:
        """Train the network by least squares.

        Parameters
        ----------
        X : list of str, or any other kind that `space` encodes
        y : array-like of shape (n_samples,)

        Returns
        -------
        self : EnformerOracle

        Raises
        ------
        InvalidDesignError, InvalidTargetError, InvalidParameterError
            Naming the row or the parameter, the value and the remedy.
        """
        self._check_parameters()
        device = resolve_device(self.device)
        space, _, x, y = read_training_data(self, X, y, space=self.space)
        if not isinstance(space, SequenceSpace):
            raise InvalidDesignError("EnformerOracle takes sequences; pass strings, or a SequenceSpace as `space`.")
        self.space_ = space
        order, seed = self._draw(len(y))
        n_held_out = int(self.validation_fraction * len(y))
        n_held_out = n_held_out if n_held_out >= _MIN_VALIDATION_ROWS else 0
        held_out, training = order[:n_held_out], order[n_held_out:]
        self.y_mean_, self.y_std_ = float(y[training].mean()), float(y[training].std())
        target = torch.from_numpy((y - self.y_mean_) / self.y_std_).float()
        with seeded(seed, device):  # dropout knows no generator
            self.network_ = self._build_network().to(device)
            self.n_iter_, self.validation_curve_ = fit_supervised(
                self.network_,
                lambda rows: self._loss(x[training[rows]], target[training[rows]]),
                len(training),
                max_iter=auto_max_iter(len(training)) if self.max_iter == "auto" else int(self.max_iter),
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                generator=torch.Generator().manual_seed(seed),
                validation_loss=(lambda: self._mean_loss(x[held_out], target[held_out])) if n_held_out else None,
                patience=_PATIENCE,
                verbose=self.verbose,
                description="oracle",
            )
        self.network_.requires_grad_(False)
        self.validation_r2_ = r2_score(y[held_out], self._predict(x[held_out])) if n_held_out else float("nan")
        self.row_hashes_ = np.unique(hash_rows(space.strings(x.rows)))
        return self

    @ordinary_torch()
    def predict(self, X: Any) -> NDArray[np.float64]:
        """Predict measurements.

        Parameters
        ----------
        X : list of str, or any other kind that `space_` encodes

        Returns
        -------
        reward : ndarray of shape (n_samples,)
            In y's units.
        """
        check_is_fitted(self, "network_")
        return self._predict(read_new_designs(self, X))

    def check_disjoint(self, X: Any) -> None:
        """Raise InvalidDesignError if any of these rows trained this oracle; see `refuse_shared_rows`."""
        check_is_fitted(self, "network_")
        refuse_shared_rows(self, X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write the oracle to a directory: ``model.safetensors`` and ``config.json``."""
        check_is_fitted(self, "network_")
        config = {
            "class": type(self).__name__,
            "space": self.space_.to_config(),
            "size": self.size,
            "fitted": {name: getattr(self, name) for name in _FITTED},
        }
        tensors = {f"network.{name}": tensor for name, tensor in self.network_.state_dict().items()}
        hashes = torch.from_numpy(self.row_hashes_.view(np.int64))
        persistence.save(directory, config=config, tensors=tensors | {"row_hashes": hashes})

    @classmethod
    def load(cls, directory: str | os.PathLike[str], *, device: str = "auto") -> EnformerOracle:
        """Read what `save` wrote.

        Raises
        ------
        CheckpointError
            If the directory is not there, cannot be read, or holds something else.
        """
        config, tensors = persistence.load(directory)
        if config.get("class") != cls.__name__:
            raise CheckpointError(f"{directory} holds a {config.get('class')!r}, not an {cls.__name__}.")
        space = SequenceSpace.require(space_from_config(config["space"]), cls.__name__)
        oracle = cls(config["size"], space=space, device=device)
        oracle.space_ = space
        for name in _FITTED:
            setattr(oracle, name, config["fitted"][name])
        oracle.row_hashes_ = tensors.pop("row_hashes").numpy().view(np.uint64)
        network = oracle._build_network()
        weights = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
        persistence.load_weights(network, weights, str(directory))
        oracle.network_ = network.to(resolve_device(device)).eval().requires_grad_(False)
        return oracle

    def _check_parameters(self) -> None:
        """Raise for parameters out of range, before any work."""
        check_choice("size", self.size, SIZES)
        check_positive(self, "learning_rate")
        check_fraction(self, "validation_fraction", allow_zero=True)
        check_count(self, "batch_size", minimum=2)
        check_count(self, "verbose", minimum=0)
        check_count(self, "max_iter", or_word="auto")

    def _draw(self, n_rows: int) -> tuple[Tensor, int]:
        """Row numbers in random order, and a seed for everything else."""
        random_state = check_random_state(self.random_state)
        return torch.from_numpy(random_state.permutation(n_rows)), int(random_state.randint(2**31 - 1))

    def _build_network(self) -> EnformerNetwork:
        """A network with fresh weights, from the global generator."""
        return EnformerNetwork(self.space_.length, self.space_.n_letters, **SIZES[self.size])

    def _loss(self, x: Tensor, target: Tensor) -> Tensor:
        """Mean squared error, on the scale of standardised y."""
        device = next(self.network_.parameters()).device
        return F.mse_loss(self.network_(x.to(device)), target.to(device))

    def _mean_loss(self, x: Tensor, target: Tensor) -> float:
        """The loss of many rows, some at a time."""
        parts = zip(x.split(_BATCH), target.split(_BATCH), strict=True)
        return sum(len(part) * float(self._loss(part, values)) for part, values in parts) / len(x)

    @torch.no_grad()
    def _predict(self, x: Points | Tensor) -> NDArray[np.float64]:
        """Values (n,) of points, in y's units."""
        device = next(self.network_.parameters()).device
        values = torch.cat([self.network_(part.to(device)).cpu() for part in x.split(_BATCH)])
        return values.double().numpy() * self.y_std_ + self.y_mean_


def auto_max_iter(n_rows: int) -> int:
    """Optimiser updates for a number of rows: about five passes over many rows, more over few."""
    return min(300 + n_rows // 25, 20_000)
