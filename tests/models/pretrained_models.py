"""Tiny directories of the transformers library, written without it: random weights, real shapes."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

WIDTH, LAYERS, HEADS, KEY_HEADS, HEAD, WIDE = 32, 2, 4, 2, 8, 48
ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 256 + len(ENDS)
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY,
    "hidden_size": WIDTH, "intermediate_size": WIDE, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS, "head_dim": HEAD,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 257, "eos_token_id": 258,
}  # fmt: skip
BERT: dict[str, Any] = {
    "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 64, "hidden_size": WIDTH,
    "intermediate_size": WIDE, "num_hidden_layers": 1, "num_attention_heads": HEADS,
    "max_position_embeddings": 40, "type_vocab_size": 2, "hidden_act": "gelu", "pad_token_id": 0,
    "layer_norm_eps": 1e-12,
}  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "dog", "cat", "runs", "sleeps", "house", "red")


def byte_letters() -> list[str]:
    """GPT-2's letter for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in plain]
    return [chr(v if v in plain else 256 + others.index(v)) for v in range(256)]


def byte_tokenizer() -> dict[str, Any]:
    """A tokenizer.json of the 256 bytes and some control tokens."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}  # fmt: skip
    added = [
        {"id": 256 + at, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for at, name in enumerate(ENDS)
    ]  # fmt: skip
    vocabulary = {letter: value for value, letter in enumerate(byte_letters())}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": False,
             "fuse_unk": False, "dropout": None, "unk_token": None, "ignore_merges": False,
             "continuing_subword_prefix": "", "end_of_word_suffix": ""}  # fmt: skip
    return {"version": "1.0", "added_tokens": added, "normalizer": None, "pre_tokenizer": level,
            "post_processor": None, "decoder": level, "truncation": None, "padding": None,
            "model": model}  # fmt: skip


def word_tokenizer() -> dict[str, Any]:
    """A tokenizer.json of a few words between [CLS] and [SEP], which cuts and fills as MiniLM's."""
    vocabulary = {word: at for at, word in enumerate(WORDS)}
    added = [
        {"id": at, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for at, word in enumerate(WORDS[:4])
    ]  # fmt: skip
    pieces = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
              {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    special = {name: {"id": name, "ids": [at], "tokens": [name]}
               for at, name in ((2, "[CLS]"), (3, "[SEP]"))}  # fmt: skip
    return {
        "version": "1.0", "added_tokens": added, "normalizer": None, "decoder": None,
        "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0,
                       "direction": "Right"},
        "padding": {"strategy": {"Fixed": 5}, "direction": "Right", "pad_to_multiple_of": None,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing", "single": pieces, "pair": pieces,
                           "special_tokens": special},
        "model": {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]",
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    }  # fmt: skip


def llama_weights(dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """Seeded random weights under the library's names."""
    shapes = {"embed_tokens": (VOCABULARY, WIDTH), "norm": (WIDTH,)}
    for layer in range(LAYERS):
        at = f"layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm": (WIDTH,), f"{at}.post_attention_layernorm": (WIDTH,),
            f"{at}.self_attn.q_proj": (HEADS * HEAD, WIDTH),
            f"{at}.self_attn.k_proj": (KEY_HEADS * HEAD, WIDTH),
            f"{at}.self_attn.v_proj": (KEY_HEADS * HEAD, WIDTH),
            f"{at}.self_attn.o_proj": (WIDTH, HEADS * HEAD),
            f"{at}.mlp.gate_proj": (WIDE, WIDTH), f"{at}.mlp.up_proj": (WIDE, WIDTH),
            f"{at}.mlp.down_proj": (WIDTH, WIDE),
        }  # fmt: skip
    return _random({f"model.{name}.weight": shape for name, shape in shapes.items()}, dtype)


def bert_weights() -> dict[str, torch.Tensor]:
    """Seeded random weights under the library's names, and the buffer that old files hold."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (64, WIDTH),
        "embeddings.position_embeddings.weight": (40, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,), "embeddings.LayerNorm.bias": (WIDTH,),
    }  # fmt: skip
    at = "encoder.layer.0"
    for name, rows, columns in (
        ("attention.self.query", WIDTH, WIDTH), ("attention.self.key", WIDTH, WIDTH),
        ("attention.self.value", WIDTH, WIDTH), ("attention.output.dense", WIDTH, WIDTH),
        ("intermediate.dense", WIDE, WIDTH), ("output.dense", WIDTH, WIDE),
    ):  # fmt: skip
        shapes |= {f"{at}.{name}.weight": (rows, columns), f"{at}.{name}.bias": (rows,)}
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        shapes |= {f"{at}.{name}.weight": (WIDTH,), f"{at}.{name}.bias": (WIDTH,)}
    buffer = {"embeddings.position_ids": torch.arange(40)[None]}
    return _random(shapes, torch.float32) | buffer


def _random(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    torch.manual_seed(11)
    return {
        name: (torch.ones(shape) if "norm" in name.lower() and name.endswith("weight")
               else torch.randn(shape) * (0.5 if len(shape) > 1 else 0.0)).to(dtype)
        for name, shape in shapes.items()
    }  # fmt: skip


def write_llama(directory: Path, **changes: Any) -> Path:
    """A directory with a tiny Llama; `changes` are to its config."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(llama_weights(), directory / "model.safetensors", {"format": "pt"})
    put(directory / "tokenizer.json", byte_tokenizer())
    put(directory / "tokenizer_config.json", {"eos_token": {"content": ENDS[2]},
                                              "bos_token": ENDS[1]})  # fmt: skip
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    put(directory / "config.json", LLAMA | changes)
    return directory


def write_bert(directory: Path) -> Path:
    """A directory with a tiny BERT, with sentence-transformers' files."""
    (directory / "1_Pooling").mkdir(parents=True, exist_ok=True)
    save_file(bert_weights(), directory / "model.safetensors", {"format": "pt"})
    put(directory / "tokenizer.json", word_tokenizer())
    put(directory / "config.json", BERT)
    put(directory / "sentence_bert_config.json", {"max_seq_length": 16})
    put(directory / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    steps = ("Transformer", "Pooling", "Normalize")
    put(directory / "modules.json",
        [{"type": f"sentence_transformers.models.{step}"} for step in steps])  # fmt: skip
    return directory


def put(path: Path, value: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(value))
