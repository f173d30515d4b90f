"""Scores in float32 of the rows asked for, made by our kernel in the place of vLLM's logits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from optillm_kernels.vllm_plugin.scoring import Head, Scorer, TokenScores, install

from optillm_local import Prompt
from optillm_local.core.concurrency import each
from optillm_local.engine import VLLMClient
from optillm_local.engine.batch import Batch

pytestmark = pytest.mark.timeout(400)

LONG = "Here is a list of numbers that matter to nobody: " + ", ".join(str(n) for n in range(60)) + ". "
TEXTS = ["59", " The largest is 59, I think.", "Größe: 🙂 naïve", "one two three four five six seven " * 12]


@pytest.fixture
def anyio_backend() -> str:
    """One event loop is enough here: the contract tests run the engine on both."""
    return "asyncio"


@pytest.fixture
def runner(engine: VLLMClient) -> Any:
    """vLLM's model runner, of the engine in this process."""
    return engine._handle._engine.model_executor.driver_worker.worker.model_runner  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def reference() -> Any:
    """The same weights in transformers, float64."""
    from transformers import AutoModelForCausalLM

    from optillm_local.engine.embedded import embedded_model

    return AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float64).eval()


@pytest.fixture
def uncovered(runner: Any) -> Any:
    """The runner, where vLLM must do it alone."""
    was, runner.__dict__["scorer"] = runner.scorer, SimpleNamespace(covers=lambda hidden: False)
    yield runner
    runner.__dict__["scorer"] = was


def fresh() -> Prompt:
    """A prompt that is not in the cache."""
    return Prompt.of(f"Number {random.random()}. " + LONG)


def expected(model: Any, prefix: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """log P of each token after the prefix and the tokens before it."""
    ids = torch.tensor([[*prefix, *tokens]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prefix) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


@pytest.mark.parametrize("text", TEXTS)
async def test_scores_are_those_of_float64(engine: VLLMClient, runner: Any, reference: Any, text: str) -> None:
    asked = fresh()
    for _ in range(2):  # computed, then with all of it in the cache
        before = runner.scorer.rows_scored
        [score] = await engine.score(asked, [text])
        truth = expected(reference, engine.render(asked), score.token_ids)
        assert torch.allclose(torch.tensor(score.logprobs, dtype=torch.float64), truth, atol=1e-4)
        assert runner.scorer.rows_scored > before


async def test_only_the_rows_asked_for_are_computed(engine: VLLMClient, runner: Any) -> None:
    before = runner.scorer.rows_scored
    scores = await engine.score(fresh(), TEXTS)
    assert runner.scorer.rows_scored - before == sum(len(one.token_ids) for one in scores)


async def test_prompts_longer_than_a_step_are_scored_in_parts(engine: VLLMClient, runner: Any) -> None:
    asked = [Prompt.of(f"Number {n}, {random.random()}. " + LONG * 5) for n in range(2)]
    before, steps = runner.scorer.rows_scored, engine.stats().steps
    together = await each(lambda prompt: engine.score(prompt, [TEXTS[3]]), asked)
    assert engine.stats().steps > steps + 1  # they do not fit into one step
    assert runner.scorer.rows_scored - before == sum(len(one.token_ids) for [one] in together)
    for prompt, [score] in zip(asked, together, strict=True):
        [alone] = await engine.score(prompt, [TEXTS[3]])
        assert score.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


async def test_vllm_scores_what_is_not_covered(engine: VLLMClient, uncovered: Any, reference: Any) -> None:
    asked = fresh()
    [score] = await engine.score(asked, [TEXTS[1]])
    truth = expected(reference, engine.render(asked), score.token_ids)
    assert torch.allclose(torch.tensor(score.logprobs, dtype=torch.float64), truth, atol=1e-3)


async def test_more_alternatives_than_the_token_are_vllm_s(engine: VLLMClient, runner: Any) -> None:
    from vllm import SamplingParams

    before, ids = runner.scorer.rows_scored, engine.render(fresh())
    params = [SamplingParams(max_tokens=1, detokenize=False, prompt_logprobs=k) for k in (3, 0)]
    three, none = await Batch(engine._handle, [ids, ids], params, [None, None]).finish()
    assert runner.scorer.rows_scored - before == len(ids) - 1
    for given, row, alone in zip(ids[1:], three.prompt_logprobs[1:], none.prompt_logprobs[1:], strict=True):
        assert len(row) >= 3 and list(alone) == [given]
        assert row[given].logprob == pytest.approx(alone[given].logprob, abs=1e-4)
        assert row[given].rank == alone[given].rank


def test_a_model_that_does_more_than_its_head_is_found_out(runner: Any) -> None:
    model, row = runner.get_model(), torch.randn(1, runner.model_config.get_hidden_size())
    head = Head.of(model)
    assert head and head.makes_logits_of(model, row)
    more = SimpleNamespace(compute_logits=lambda hidden: 1.1 * model.compute_logits(hidden))
    assert not head.makes_logits_of(more, row)
    assert Head.of(SimpleNamespace(lm_head=torch.nn.Linear(4, 8))) is None


def test_the_other_runner_s_worker_scores_the_same(runner: Any) -> None:
    """vLLM's worker of the V2 runner needs no GPU for this, only what a batch looks like."""
    from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker

    model, width = runner.get_model(), runner.model_config.get_hidden_size()
    hidden = torch.randn(7, width)
    worker = PromptLogprobsWorker(4, torch.device("cpu"))
    install(
        SimpleNamespace(prompt_logprobs_worker=worker, get_model=lambda: model, vllm_config=runner.vllm_config)
    )
    assert isinstance(worker, TokenScores) and isinstance(worker.scorer, Scorer)
    batch = SimpleNamespace(
        req_ids=["a", "b"],
        idx_mapping_np=np.array([0, 1]),
        num_computed_prefill_tokens_np=np.array([0, 16]),
        num_scheduled_tokens=np.array([4, 3]),
        prefill_len_np=np.array([4, 19]),
        query_start_loc_np=np.array([0, 4, 7]),
    )
    for name, given, start in (("a", [[5], [6]], 1), ("b", [[7, 8]], 17)):
        asked = SimpleNamespace(
            prompt_logprobs=None, prompt_logprob_token_ids=np.array(given), prompt_logprob_start=start
        )
        worker.add_request(name, batch.req_ids.index(name), asked)
    found = worker.compute_prompt_token_id_logprobs(model.compute_logits, hidden, batch, np.array([4, 19]))
    truth = model.compute_logits(hidden).log_softmax(-1)
    assert torch.allclose(found["a"], torch.stack([truth[1, 5:6], truth[2, 6:7]]), atol=1e-4)
    assert torch.allclose(found["b"], truth[5:6, 7:9], atol=1e-4)
    assert worker.scorer.rows_scored == 2 and worker.logprobs_mode == "raw_logprobs"
