"""Whether the prompt is still in the picture: the check of the paper's Table 5."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braidkit.exceptions import CheckpointError, InvalidParameterError, MissingExtraError
from braidkit.persistence import read_path
from braidkit.spaces import read_designs

QUESTION = "Does this image include {prompt}? Answer with Yes or No"
# As the paper asks a LLaVA model that has no template of its own.
_LITERAL = "USER: <image>\n{question} ASSISTANT:"


class PromptCheck:
    """Whether each picture shows what its prompt says.

    Parameters
    ----------
    shows : callable
        From images (n, height, width[, channels]), and a prompt for each, to n numbers: above 0 for yes. See
        `from_pretrained` for a vision-language model, and `from_classifier` for a classifier in its place.
    """

    def __init__(self, shows: Callable[[NDArray[Any], Sequence[str]], Any]) -> None:
        if not callable(shows):
            raise InvalidParameterError(
                f"shows must be callable, from images and prompts to numbers; got {shows!r:.60}."
            )
        self.shows = shows

    @classmethod
    def from_classifier(cls, classify: Callable[[NDArray[Any]], Any], classes: Sequence[str]) -> PromptCheck:
        """Take a classifier's word: yes, where the class of highest score is the prompt.

        Parameters
        ----------
        classify : callable
            From images to scores (n, n_classes).
        classes : list of str
            Each prompt must be one of them; a class of junk may be among them.
        """
        numbers = {name: number for number, name in enumerate(classes)}

        def shows(images: NDArray[Any], prompts: Sequence[str]) -> NDArray[Any]:
            unknown = sorted(set(prompts) - set(numbers))
            if unknown:
                raise InvalidParameterError(f"{unknown[0]!r} is no class of the classifier: {', '.join(classes)}.")
            scores = np.asarray(classify(images))
            if scores.shape != (len(images), len(classes)):
                raise InvalidParameterError(
                    f"the classifier must give scores ({len(images)}, {len(classes)}); got {scores.shape}."
                )
            return np.where(scores.argmax(axis=1) == [numbers[prompt] for prompt in prompts], 1.0, -1.0)

        return cls(shows)

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str]) -> PromptCheck:
        """Ask a vision-language model of transformers, and compare its logits of the words Yes and No.

        Parameters
        ----------
        directory : path-like
            Directory of a model for images and text, such as LLaVA, with its processor. Nothing is downloaded.

        Raises
        ------
        CheckpointError
            If the directory is not there, or holds no such model.
        """
        folder = read_path("directory", directory)
        if not (folder / "config.json").is_file():
            state = "is not a directory" if not folder.is_dir() else "has no config.json"
            raise CheckpointError(f"{folder} {state}; pass the directory of a vision-language model of transformers.")
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError as error:
            raise MissingExtraError('the check needs transformers: pip install "braidkit[images]".') from error
        try:
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{folder} cannot be loaded as a vision-language model: {error}") from error
        return cls(_Asked(model.eval().requires_grad_(False), processor))

    def __call__(self, X: Any, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each image shows its prompt, (n_samples,).

        Parameters
        ----------
        X : images
            uint8 or floats in [0, 1], channels last.
        prompts : list of str
            One for each image.
        """
        images = read_designs(X)
        if not isinstance(prompts, Sequence) or isinstance(prompts, str) or len(prompts) != len(images):
            raise InvalidParameterError(f"prompts must be a list of {len(images)} texts, one for each image.")
        return np.asarray(self.shows(images, prompts)) > 0

    def reward(self, oracle: Callable[[Any], Any], X: Any, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The paper's reward, (n_samples,): an oracle's score, or 0 where the prompt is not in the picture."""
        return np.where(self(X, prompts), np.asarray(oracle(X), dtype=float), 0.0)


class _Asked:
    """A vision-language model that is asked about one image at a time."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        tokenizer = processor.tokenizer
        # The last token, for tokenizers that begin with one of their own.
        self.words = [tokenizer(word, add_special_tokens=False).input_ids[-1] for word in ("Yes", "No")]
        if self.words[0] == self.words[1]:
            raise CheckpointError("the model's tokenizer has the same tokens for Yes and No.")

    def __call__(self, images: NDArray[Any], prompts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self._margin(*pair) for pair in zip(images, prompts, strict=True)])

    def _margin(self, image: NDArray[Any], prompt: str) -> float:
        """Logit of Yes less that of No."""
        import torch
        from PIL import Image

        pixels = image if image.dtype == np.uint8 else np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
        picture = Image.fromarray(pixels.squeeze()).convert("RGB")
        given = self.processor(images=picture, text=self._text(prompt), return_tensors="pt").to(self.model.device)
        with torch.no_grad():
            yes, no = self.model(**given).logits[0, -1, self.words].tolist()
        return yes - no

    def _text(self, prompt: str) -> str:
        """The question, as the model's template puts it, or literally."""
        question = QUESTION.format(prompt=prompt)
        if getattr(self.processor, "chat_template", None) is None:
            return _LITERAL.format(question=question)
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
