"""Whether the prompt is in the picture, by a classifier and by a small LLaVA of the real class."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

from braidkit.exceptions import CheckpointError, InvalidParameterError
from braidkit.oracles import PromptCheck

WHITE, BLACK = (np.full((8, 8, 3), value, np.uint8) for value in (255, 0))


def by_brightness(images):
    bright = images.reshape(len(images), -1).mean(axis=1) / 255
    return np.stack([bright, 1 - bright, np.full(len(images), 0.4)], axis=1)


def test_a_classifier_says_whether_the_prompt_is_in_the_picture():
    check = PromptCheck.from_classifier(by_brightness, ["snow", "night", "junk"])
    images = np.stack([WHITE, BLACK, WHITE])
    assert check(images, ["snow", "snow", "night"]).tolist() == [True, False, False]
    scores = check.reward(lambda X: [5, 6, 7], images, ["snow", "night", "night"])
    assert scores.tolist() == [5, 6, 0]
    with pytest.raises(InvalidParameterError, match="'rain' is no class"):
        check(images, ["snow", "rain", "snow"])
    with pytest.raises(InvalidParameterError, match="prompts must be a list of 3 texts"):
        check(images, ["snow"])
    with pytest.raises(InvalidParameterError, match=r"scores \(3, 2\); got \(3, 3\)"):
        PromptCheck.from_classifier(by_brightness, ["snow", "night"])(images, ["snow"] * 3)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A LLaVA of a few thousand weights, saved with its processor, which has no template."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("llava")
    words = ["<pad>", "<unk>", "<image>", "Yes", "No", "USER", ":", "ASSISTANT", "Does", "this", "image", "include"]
    words += ["cat", "dog", "?", "Answer", "with", "or"]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", additional_special_tokens=["<image>"]
    )
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**size, image_size=16, patch_size=8),
        text_config=transformers.LlamaConfig(**size, vocab_size=len(words), bos_token_id=0, eos_token_id=0),
        image_token_index=2,
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    transformers.LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    ).save_pretrained(folder)
    return folder


def test_a_vision_language_model_is_asked_for_yes_or_no(llava):
    check = PromptCheck.from_pretrained(llava)
    asked = check.shows
    assert asked.words == [3, 4]
    assert asked._text("cat") == "USER: <image>\nDoes this image include cat? Answer with Yes or No ASSISTANT:"
    images = np.stack([WHITE, BLACK])
    margins = asked(images, ["cat", "cat"])
    assert margins[0] != margins[1] and margins[0] != asked(images[:1], ["dog"])[0]
    assert check(images, ["cat", "cat"]).tolist() == (margins > 0).tolist()
    np.testing.assert_allclose(asked(images / 255, ["cat", "cat"]), margins)


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        PromptCheck.from_pretrained(tmp_path / "nowhere")
