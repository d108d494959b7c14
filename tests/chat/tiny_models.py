"""Two language models of a few thousand weights, made at random where the Hugging Face cache would have them.

They answer with words of a small vocabulary, drawn by a Llama; one sees a picture through a CLIP tower (LLaVA).
As a program, `tiny_models.py HUB serve ...`, it makes them and is `transformers serve ...`: in a process of its own,
since what it loads takes seconds and warns.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

TEXT, PICTURE = "tiny/text", "tiny/picture"
WORDS = "a the dog cat car red blue green on in with grass street small large photo of sits runs".split()  # noqa: SIM905
SPECIAL = ["<unk>", "<s>", "</s>", "<image>"]
_ENDS = "</s> {% endfor %}{% if add_generation_prompt %}<s> {% endif %}"
TEXT_TEMPLATE = "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} " + _ENDS
PICTURE_TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}" + _ENDS
)


def make(hub: Path) -> None:
    """Both models, as `hub` is laid out."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlamaForCausalLM,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(0)
    size: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = LlamaConfig(vocab_size=len(SPECIAL + WORDS), max_position_embeddings=2048, **size, **ids)
    save(hub, TEXT, LlamaForCausalLM(config), tokenizer(TEXT_TEMPLATE))

    vision = CLIPVisionConfig(image_size=32, patch_size=8, **size)
    seeing = LlavaConfig(vision_config=vision, text_config=config, image_token_index=3, vision_feature_layer=-1)
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer(PICTURE_TEMPLATE),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=PICTURE_TEMPLATE,
    )
    save(hub, PICTURE, LlavaForConditionalGeneration(seeing), processor)


def tokenizer(template: str) -> Any:
    """Whole words, and what a chat is to it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(SPECIAL + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        chat_template=template,
    )


def save(hub: Path, name: str, model: Any, processor: Any) -> None:
    folder, revision = hub / f"models--{name.replace('/', '--')}", "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    model.generation_config.do_sample = True
    model.save_pretrained(folder / "snapshots" / revision)
    processor.save_pretrained(folder / "snapshots" / revision)


if __name__ == "__main__":
    from transformers.cli.transformers import main

    make(Path(sys.argv.pop(1)))
    main()
