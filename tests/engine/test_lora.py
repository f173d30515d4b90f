"""Adapters beside the model itself in one batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import torch
from safetensors.torch import save_file

from optillm_local import Prompt
from optillm_local.core.errors import ModelNotFound, RequestRejected
from optillm_local.engine import VLLMClient

pytestmark = pytest.mark.timeout(300)

RANK = 32  # above vLLM's default of 16
QUESTION = Prompt.of("What is the capital of France?", temperature=0.0, max_tokens=12)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA of noise on the query and value projections of the embedded model."""
    noise = torch.Generator().manual_seed(0)
    weights = {}
    for layer in range(30):
        for name, size in (("q_proj", 576), ("v_proj", 192)):
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{key}.lora_A.weight"] = torch.randn(RANK, 576, generator=noise) * 0.05
            weights[f"{key}.lora_B.weight"] = torch.randn(size, RANK, generator=noise) * 0.05
    save_file(weights, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj", "v_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_prompt_picks_its_adapter_and_its_neighbours_keep_theirs(adapter: Path) -> None:
    modules = {"noise": adapter}
    client = VLLMClient(handle="async", max_model_len=512, kv_cache_gib=0.25, lora_modules=modules)

    async def main() -> None:
        noisy = replace(QUESTION, adapter="noise")
        [plain], [other] = await client.sample(QUESTION), await client.sample(noisy)
        assert plain.text != other.text
        async with client.generate([QUESTION, noisy, QUESTION]) as group:
            ends = {i: event.completion.text async for i, event in group if hasattr(event, "completion")}
        assert [ends[i] for i in range(3)] == [plain.text, other.text, plain.text]
        with pytest.raises(RequestRejected, match="Did you mean 'noise'"):
            await client.sample(replace(QUESTION, adapter="noisy"))
        await client.close()

    anyio.run(main)


def test_a_missing_adapter_is_named_before_the_engine_starts() -> None:
    with pytest.raises(ModelNotFound, match=r"LoRA module 'gone': .*gone/adapter_config\.json"):
        VLLMClient(lora_modules={"gone": "/gone"})
