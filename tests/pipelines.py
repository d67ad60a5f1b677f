"""Pipelines of diffusers' own classes, tiny, built from configurations."""

import json

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)


def tokenizer(folder):
    """One token a letter, and one for each letter that ends a word."""
    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=12)


def scheduler(**changes):
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return DDIMScheduler(**(settings | changes))


def text_encoder(words, kind=CLIPTextModel):
    return kind(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=16,
            projection_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=12,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


def vae(**changes):
    return AutoencoderKL(
        sample_size=16,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        mid_block_add_attention=False,
        scaling_factor=0.9,
        **changes,
    )


def unet(**changes):
    settings = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**(settings | changes))


def stable_diffusion(folder, **changes):
    """Save a pipeline of 16 x 16 pixels and latents of 8 x 8 to a folder; changes are the scheduler's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = tokenizer(folder.parent / f"{folder.name}-words")
        StableDiffusionPipeline(
            text_encoder=text_encoder(words),
            unet=unet(),
            vae=vae(),
            tokenizer=words,
            scheduler=scheduler(**changes),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
    return folder


def stable_diffusion_xl(folder, **changes):
    """One of SDXL, with two text encoders; changes are the VAE's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = tokenizer(folder.parent / f"{folder.name}-words")
        # The network sees the text as a whole, 16 numbers, and six sizes of 4 numbers each.
        added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
        StableDiffusionXLPipeline(
            vae=vae(**changes),
            text_encoder=text_encoder(words),
            text_encoder_2=text_encoder(words, CLIPTextModelWithProjection),
            tokenizer=words,
            tokenizer_2=words,
            unet=unet(cross_attention_dim=32, projection_class_embeddings_input_dim=40, **added),
            scheduler=scheduler(),
        ).save_pretrained(folder)
    return folder


def stable_diffusion_3(folder, t5=False, **changes):
    """One of Stable Diffusion 3, a transformer with flow matching, with T5 or without; changes are the scheduler's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = tokenizer(folder.parent / f"{folder.name}-words")
        letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((chr(code), -1.0) for code in range(97, 123))]
        transformer = SD3Transformer2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=8,
        )
        # Its last layer, as built, gives next to nothing.
        transformer.proj_out.weight.data.normal_(std=0.3)
        encoder = T5EncoderModel(T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
        StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(**({"shift": 3.0} | changes)),
            vae=vae(shift_factor=0.1),
            text_encoder=text_encoder(words, CLIPTextModelWithProjection),
            tokenizer=words,
            text_encoder_2=text_encoder(words, CLIPTextModelWithProjection),
            tokenizer_2=words,
            text_encoder_3=encoder if t5 else None,
            tokenizer_3=T5Tokenizer(vocab=letters, extra_ids=0) if t5 else None,
        ).save_pretrained(folder)
    return folder


def ddpm(folder, scheduler=None):
    """Save an unconditional pipeline of grey 8 x 8 images to a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=4,
            norm_num_groups=4,
        )
    DDPMPipeline(unet, scheduler or DDPMScheduler(clip_sample=True)).save_pretrained(folder)
    return folder


def clip(folder):
    """Save a CLIP model that gives 12 numbers for 32 x 32 pixels to a folder."""
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=size | {"vocab_size": 20, "max_position_embeddings": 8},
        vision_config=size | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    sides = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=sides).save_pretrained(folder)
    return folder


def images_of(pipe, prompts, noise, n_steps, guidance_scale, skipped=0, **options):
    """A pipeline's images (n, channels, height, width) in [-1, 1], from the noise of a chain.

    Schedulers of betas take steps of eta = 1 with that noise; those of flow matching take their own, which have none.
    """
    latents = noise[:, 0, :-1].reshape(len(noise), 4, 8, 8)
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": n_steps, "guidance_scale": guidance_scale, "output_type": "pt"} | options
    if isinstance(pipe.scheduler, DDIMScheduler):
        step, asked = pipe.scheduler.step, iter(range(n_steps - skipped, -1, -1))

        def with_noise(output, time, sample, eta, **_):
            t = next(asked)
            drawn = noise[:, t, :-1].reshape(sample.shape) if t else torch.zeros_like(sample)
            return step(output, time, sample, eta=eta, variance_noise=drawn, return_dict=False)

        pipe.scheduler.step = with_noise
        settings["eta"] = 1.0
    return 2 * pipe(prompts, latents=latents, **settings).images - 1
