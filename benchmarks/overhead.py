"""What our client costs: tokens per second of `client.sample` as a ratio to a bare `LLM.generate`.

Same process, same engine settings, same prompt ids, same sampling parameters, alternating A B A B. The ratio
of each pair is taken from neighbours in time, so that slow drifts of the machine cancel; the median of the
pairs is the figure. Run it on an otherwise idle machine:

    python benchmarks/overhead.py [--n 32] [--tokens 64] [--rounds 5] [--model ID_OR_PATH] [--out DIR]
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from records import RESULTS, append

from optillm_local import Prompt, VLLMClient
from optillm_local.engine import EngineSettings

PROMPT = "Explain step by step how a bill becomes a law, with an example from history."


def bare(
    settings: EngineSettings, ids: list[int], n: int, tokens: int
) -> tuple[Callable[[], int], Callable[[], None]]:
    """`LLM.generate` on the same model, and how to end it."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import tokens_input
    from vllm.platforms import current_platform

    from optillm_local.engine.start import engine_args, model_path

    args = engine_args(settings, model_path(settings), on_cpu=current_platform.is_cpu())
    llm = LLM(**args)
    params = [
        SamplingParams(temperature=1.0, max_tokens=tokens, seed=seed, logprobs=0, ignore_eos=False)
        for seed in range(n)
    ]

    def generate() -> int:
        outputs = llm.generate([tokens_input(list(ids)) for _ in params], params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    def end() -> None:
        llm.llm_engine.engine_core.shutdown()

    return generate, end


def ours(client: VLLMClient, prompt: Prompt, n: int) -> Callable[[], int]:
    """`client.sample` of the same work."""

    def generate() -> int:
        return sum(len(one.token_ids) for one in anyio.run(lambda: client.sample(prompt, n=n)))

    return generate


def rate(generate: Callable[[], int]) -> tuple[float, int]:
    """Tokens per second, and tokens."""
    gc.collect()
    started = time.perf_counter()
    tokens = generate()
    return tokens / (time.perf_counter() - started), tokens


def measure(settings: EngineSettings, n: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Alternate the two and compare neighbours."""
    client = VLLMClient(settings, progress=print)
    prompt = Prompt.of(PROMPT, temperature=1.0, max_tokens=tokens, seed=0)
    generate, end = bare(settings, client.render(prompt), n, tokens)
    sample = ours(client, prompt, n)
    print("warming up")
    for warm_up in (generate, sample):
        warm_up()
    pairs = []
    for turn in range(rounds):
        (bare_rate, bare_tokens), (our_rate, our_tokens) = rate(generate), rate(sample)
        ratio = our_rate / bare_rate
        pairs.append({"bare_tok_s": bare_rate, "ours_tok_s": our_rate, "ratio": ratio})
        print(f"round {turn + 1}/{rounds}: bare {bare_rate:.1f}, ours {our_rate:.1f} tokens/s, {ratio:.3f}")
    anyio.run(client.close)
    end()
    return {
        "ratio": statistics.median(pair["ratio"] for pair in pairs),
        "bare_tok_s": statistics.median(pair["bare_tok_s"] for pair in pairs),
        "ours_tok_s": statistics.median(pair["ours_tok_s"] for pair in pairs),
        "tokens_per_round": {"bare": bare_tokens, "ours": our_tokens},
        "pairs": pairs,
    }


def main() -> None:
    """Measure, print, append one record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=32, help="sequences per round (32)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per sequence (64)")
    parser.add_argument("--handle", default="inprocess", choices=["inprocess", "async"], help="form of our engine")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements (5)")
    parser.add_argument("--model", help="path or Hugging Face id; the embedded model if left out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records")
    options = parser.parse_args()
    settings = EngineSettings.load(
        model=options.model, handle=options.handle, max_model_len=1024, kv_cache_gib=1.0
    )
    load_before = os.getloadavg()
    found = measure(settings, options.n, options.tokens, options.rounds)
    record = {
        "n": options.n,
        "tokens": options.tokens,
        **found,
        "settings": settings.model_dump(mode="json"),
        "load_before": load_before,
    }
    path = append("overhead", record, options.out)
    print(f"ratio {found['ratio']:.3f} (ours / bare); record in {path}")


if __name__ == "__main__":
    main()
