"""MaskedDiffusion: sequences whose positions are revealed in random order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from braidkit.diffusion._chances import LetterTable, expected_letters, log_chances
from braidkit.diffusion._letters import LOG_ZERO, LetterChain, without_zeros
from braidkit.diffusion._masked_networks import ConvLetterNetwork, FlatLetterNetwork, masked_positions
from braidkit.diffusion._policies import Fixed
from braidkit.diffusion._strata import stratified_steps
from braidkit.diffusion._unmasking import Unmasking
from braidkit.diffusion._zero_layer import ZeroLayer
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_number
from braidkit.spaces import Points, SequenceSpace, Space

if TYPE_CHECKING:
    from braidkit.diffusion.masked_lm import MaskedLMDiffusion

# Up to this length one network sees all positions at once; longer sequences are for convolutions.
MAX_FLAT_LENGTH = 16
ROWS_AT_ONCE = 65_536


class MaskedDiffusion(LetterChain):
    """The absorbing-state diffusion of tokens: all positions start masked and are revealed in random order.

    Of L free positions, ``m_t = round(L t / n_steps)`` are masked in x_t. Step t reveals ``m_t - m_{t-1}`` of them,
    drawn uniformly, and draws their letters from the distributions that a network gives each masked position after
    seeing the others. Positions that are revealed together are independent given the state; one at a time, the default,
    no dependence is lost. A state is one-hot rows, of zeros where masked; as all paths start from the same state, there
    is no initial law to tilt.

    Parameters
    ----------
    space : SequenceSpace
    n_steps : int, optional
        At most the number of free positions, which is the default: one position a step.
    n_hidden : int, default=256
        Width of the three hidden layers that see all positions of sequences of up to 16. Longer sequences get the
        small convolutional network of `SimplexDiffusion`, whatever `n_hidden`.
    prior : {"markov"} or None
        Start of the letters' logits: a `MarkovLaw` of the designs, whose posterior given the revealed letters is exact,
        or nothing. The network learns the dependence that the law misses.

    Notes
    -----
    Letters that are impossible under the Markov law given those revealed have probability zero in every policy, also of
    a fine-tuned chain. With a network of zero and one position a step the chain's law is the Markov law.

    Letters that the space holds are there from the start, and steps exist for free positions only. The chain's law is
    exactly the conditional one if positions are revealed one at a time, and if the letters' distributions belong to one
    law. The KL counts free positions only. `in_space` gives a trained chain other letters to hold.

    Limits of the space are met by every design, exactly: positions are revealed one at a time, and a letter after which
    no sequence of the space is left has probability zero, in every policy, also of a fine-tuned chain. The others are
    weighted by the probability that the limits are met, were the letters at masked positions independent, each as the
    chain expects it next to the parent's letters, or to none (`expected`). So mutations come where the chain
    expects them, not where it happens to begin; where letters are independent under the chain, its law is the
    conditional one. Limits come before the Markov law: where no sequence meets both, letters that the law calls
    impossible are drawn.

    Where designs have several lengths, padding is one letter more of the chain, and a letter on the wrong side of it
    has probability zero in every policy. In the Markov law lengths are as frequent as in the data.

    The training loss is the evidence bound of the whole chain. Times the number of free positions it is an upper bound
    of the mean negative log-likelihood of the designs, in nats.

    References
    ----------
    Austin et al. (2021), "Structured denoising diffusion models in discrete state-spaces". Hoogeboom et al. (2022),
    "Autoregressive diffusion models", for the order and the bound. Sahoo et al. (2024), "Simple and effective masked
    diffusion language models". BRAID (Uehara et al., 2024), equation (6), for the policies.

    Examples
    --------
    >>> from braidkit import MaskedDiffusion, SequenceSpace
    >>> model = MaskedDiffusion(SequenceSpace("DNA", length=4), n_hidden=32)
    >>> model = model.fit(["ACGT", "TTTT"] * 50, max_iter=200, random_state=0)
    >>> sorted(set(model.sample(20, random_state=1)))
    ['ACGT', 'TTTT']
    """

    _reads_out_by_network: ClassVar[bool] = False
    # A position is revealed once, so no entry of a draw is read twice: ranks that stay give the positions in random
    # order, and the letter's entries are fresh when its position's turn comes. Memory grows with the length alone.
    _draws_once: ClassVar[bool] = True
    space: SequenceSpace

    def __init__(
        self,
        space: SequenceSpace,
        *,
        n_steps: int | None = None,
        n_hidden: int = 256,
        prior: str | None = "markov",
    ) -> None:
        SequenceSpace.require(space, "MaskedDiffusion")
        super().__init__(space, n_steps=space.n_free_positions if n_steps is None else n_steps, prior=prior)
        if self.n_steps > space.n_free_positions:
            which = "length" if space.template is None else "number of free positions"
            raise InvalidParameterError(
                f"n_steps must be at most the {which}, {space.n_free_positions}, so that each step reveals a position; "
                f"got {self.n_steps}."
            )
        if space.limited and self.n_steps < space.n_free_positions:
            raise InvalidParameterError(
                f"n_steps must be {space.n_free_positions} or left out where designs have limits: they are kept letter "
                f"by letter, so that each step reveals one; got {self.n_steps}."
            )
        check_number("n_hidden", n_hidden, low=1, whole=True)
        self.n_hidden = int(n_hidden)
        self._is_zero = ZeroLayer()
        self.expect()

    expected: Tensor

    @property
    def default_solver(self) -> str:
        """One without gradients through letters, which would be biased: they end far from the optimum."""
        has_law = self.prior_kind is not None and (self.prior is not None or not self.is_trained)
        return "tempering" if has_law and self.space.can_change_a_letter else "trajectory_balance"

    @property
    def knows_law(self) -> bool:
        """Whether the chain's law is its Markov law: with a network of zero, no limits, and one position a step."""
        alone = self.prior is not None and not self.space.limited and self.n_steps == self.space.n_free_positions
        return alone and self.is_trained and self._network_gives_zero()

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        self.space.check_points(x)
        if not self.knows_law:
            return super().log_prob(x)
        assert self.prior is not None
        given = self.prior.log_normaliser(self.log_held(1)[0]) if self.space.template else 0.0
        return self.prior.log_prob(x.argmax(dim=-1)) - given

    @torch.no_grad()
    def sample_points(self, noise: Tensor) -> Tensor:
        """Run the chain on given noise; where it `knows_law` it is drawn from directly, which is much faster."""
        self.check_trained()
        if not self.knows_law:
            return super().sample_points(noise)
        self.check_noise(noise)
        assert self.prior is not None
        uniform = torch.special.ndtr(noise[:, 0, :, 0].to(self.device, torch.float64))
        tokens = self.prior.sample(uniform, self.log_held(len(noise)))
        return nn.functional.one_hot(tokens, self.space.n_letters).to(noise.dtype)

    @property
    def trainable(self) -> nn.Module:
        """The part that fine-tuning changes: the network, the Markov law under it, and what that law expects."""
        network = super().trainable
        if self.prior is None:
            return network
        expected = {"expected": LetterTable(self.expected)} if self.space.limited else {}
        return nn.ModuleDict({"network": network, "prior": self.prior} | expected)

    @property
    def n_masked(self) -> list[int]:
        """Number of masked positions in x_0, ..., x_T."""
        return [round(self.space.n_free_positions * t / self.n_steps) for t in range(self.n_steps + 1)]

    def in_space(self, space: Space) -> MaskedDiffusion:
        """The chain given what a space holds, exactly, and within its limits.

        It reveals as many positions a step, so it has fewer steps; with limits one a step.
        """
        model: MaskedDiffusion = super().in_space(space)
        if model is self:
            return self
        n_free = model.space.n_free_positions
        share = n_free / self.space.n_free_positions
        model.n_steps = n_free if model.space.limited else min(math.ceil(self.n_steps * share), n_free)
        model._buffers.pop("expected", None)
        model.expect()
        return model

    def expect(self) -> None:
        """Set the letters that limits are weighed by: those that this chain, as it is now, expects."""
        if self.space.limited:
            self.register_buffer("expected", expected_letters(self))

    def _train(self, x: Points, seed: int, *, validation_fraction: float, verbose: int = 0, **settings: Any) -> None:
        super()._train(x, seed, validation_fraction=validation_fraction, verbose=verbose, **settings)
        self.expect()

    @classmethod
    def from_masked_lm(
        cls,
        directory_or_model: Any,
        space: SequenceSpace,
        *,
        tokenizer: Any = None,
        n_steps: int | None = None,
        lora_rank: int = 8,
        lora_alpha: float | None = None,
        target_modules: Sequence[str] | None = None,
        dtype: str = "float32",
    ) -> MaskedLMDiffusion:
        """A chain whose letters a published masked language model predicts, ready to be sampled and fine-tuned.

        Fine-tuning changes an adapter of low rank (LoRA); the language model is never changed or copied. `fit` trains
        the adapter on your own sequences first, over all shares of masked letters; it is optional.

        Parameters
        ----------
        directory_or_model : path-like, str or PreTrainedModel
            A directory that ``save_pretrained`` of transformers wrote, ``"hf://owner/name"`` for a model of the
            Hugging Face hub, or a loaded model. No code that comes with a model is run.
        space : SequenceSpace
            Its letters must be single tokens. Hold what is not to be designed by a template: such models predict best
            when few letters are masked.
        tokenizer : PreTrainedTokenizer, path-like or str, optional
            By default that of the directory; a loaded model needs it.
        n_steps : int, optional
            By default few, since each step of a design is a pass of the language model: a step reveals about four
            letters, and there are five steps at least, if so many positions are free. One position a step where designs
            have limits.
        lora_rank : int, default=8
        lora_alpha : float, optional
            The adapter's product is multiplied by ``lora_alpha / lora_rank``; 2 by default.
        target_modules : sequence of str, optional
            Names, or ends of names, of the layers to adapt; by default all linear layers of the attention.
        dtype : {"float32", "bfloat16", "float16"}, default="float32"
            Of the language model's weights, where they are loaded here. Logits and adapter are always in float32.

        Returns
        -------
        model : MaskedLMDiffusion

        Raises
        ------
        MissingExtraError
            Without transformers and peft.
        CheckpointError
            If no masked language model can be loaded from there.
        IncompatibleModelError
            If letters are not single tokens, or sequences are longer than the model reads.

        References
        ----------
        Alamdari et al. (2023), "Protein generation with evolutionary diffusion", for masked language models as
        order-agnostic diffusion. Hu et al. (2022), "LoRA: low-rank adaptation of large language models".
        """
        from braidkit.diffusion.masked_lm import MaskedLMDiffusion

        return MaskedLMDiffusion.load(
            directory_or_model,
            space,
            tokenizer=tokenizer,
            n_steps=n_steps,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            target_modules=target_modules,
            dtype=dtype,
        )

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.space.shape

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One entry a letter, and one that ranks the position."""
        return (self.space.length, self.space.n_letters + 1)

    def initial(self, n: int) -> Fixed:
        """All positions masked but those that the space holds."""
        return Fixed(self.space.hold(torch.zeros(n, *self.state_shape, device=self.device)))

    def policy(self, x_t: Tensor, t: int) -> Unmasking:
        """Reveal ``m_t - m_{t-1}`` of the m_t masked positions of each row."""
        return Unmasking(x_t, self._limited_logits(x_t), masked_positions(x_t), self.n_masked[t] - self.n_masked[t - 1])

    def readout(self, x_0: Tensor) -> Tensor:
        """The state itself: nothing is masked."""
        return x_0

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        """The letters revealed so far, and the network's distributions at the other positions."""
        return x_t + masked_positions(x_t)[..., None] * self._limited_logits(x_t).softmax(dim=-1)

    @torch.no_grad()
    def letter_log_probs(self, states: Tensor) -> Tensor:
        """Log-probabilities of the letters at every position of partly masked sequences.

        With all ``(K + 1) ** L`` states of a short space, in any order, these are the whole chain as a table.

        Parameters
        ----------
        states : Tensor of shape (n, length, n_letters)
            One-hot rows, of zeros where masked; any number of them, as many as memory holds.

        Returns
        -------
        log_probs : Tensor of shape (n, length, n_letters)
            Without meaning at positions that are not masked.
        """
        self.space.check_points(states)
        chunks = states.to(self.device).split(ROWS_AT_ONCE)
        return torch.cat([self._limited_logits(chunk).log_softmax(dim=-1) for chunk in chunks])

    def _logits(self, x: Tensor) -> Tensor:
        """Logits (n, L, K) of the letters."""
        if self.network is None:
            raise self._not_trained()
        if self.prior is None:
            return self.network(x)
        by_law = without_zeros(self.prior.prediction(x + masked_positions(x)[..., None]))
        learns = torch.is_grad_enabled() and next(self.network.parameters()).requires_grad
        return by_law + self.network(x) if learns or not self._network_gives_zero() else by_law

    def _network_gives_zero(self) -> bool:
        """Whether the network's last layer is zero, as at first: the law alone is then the chain, in half the time."""
        assert isinstance(self.network, (FlatLetterNetwork, ConvLetterNetwork))
        return self._is_zero(self.network.output)

    def _limited_logits(self, x: Tensor) -> Tensor:
        """Logits (n, L, K) of the letters by which the limits are met, whatever the network gives."""
        logits = self._logits(x)
        if not self.space.limited:
            return logits
        chances = log_chances(self.space, x.detach(), self.expected)
        # From LOG_ZERO on, so that a letter without a chance is less likely than any other.
        logits = without_zeros(logits.log_softmax(dim=-1))
        return logits + chances.to(logits.dtype).masked_fill(chances == -torch.inf, 2 * LOG_ZERO)

    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """Mask ``m_t`` positions of each row, drawn uniformly from those that are free."""
        n, length = x.shape[:2]
        n_masked = torch.tensor(self.n_masked, device=x.device)[t].reshape(-1, 1)
        # Mask the first m_t positions of a random order, in which held positions come last.
        order = torch.rand(n, length, generator=generator, device=x.device)
        if self.space.template is not None:
            order = order.masked_fill(self.space.hold(torch.full_like(x, -1.0)).amax(dim=-1) >= 0, torch.inf)
        ranks = order.argsort(dim=1).argsort(dim=1)
        return x * (ranks >= n_masked)[..., None]

    def _build_network(self, n_conditions: int = 0) -> nn.Module:
        if self.space.length <= MAX_FLAT_LENGTH:
            return FlatLetterNetwork(self.space.length, self.space.n_letters, self.n_hidden, n_conditions)
        return ConvLetterNetwork(self.space.n_letters, n_conditions)

    def _loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        n, length = x.shape[:2]
        t = stratified_steps(n, self.n_steps, generator)
        n_masked = torch.tensor(self.n_masked, device=x.device)
        state = self.noised(x, t, generator)
        logits = self._logits(state)
        errors = nn.functional.cross_entropy(logits.flatten(0, 1), x.argmax(dim=-1).flatten(), reduction="none")
        by_row = (masked_positions(state) * errors.reshape(n, length)).sum(dim=1) / n_masked[t]
        # Steps that reveal more count for more, as in the bound (Hoogeboom et al., 2022); the weights' mean is one.
        return (by_row * (n_masked[t] - n_masked[t - 1]) * self.n_steps / self.space.n_free_positions).mean()

    def _config(self) -> dict[str, Any]:
        return {"n_steps": self.n_steps, "n_hidden": self.n_hidden, "prior": self.prior_kind}
