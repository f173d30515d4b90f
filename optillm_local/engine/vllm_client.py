"""`ModelClient` over vLLM in this program."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import (
    Choice,
    Completed,
    Completion,
    FinishReason,
    OutputTextDelta,
    ResponseEvent,
    Score,
    Transcript,
)
from optillm_local.core.concurrency import UNNEEDED
from optillm_local.core.errors import ClientError, InvalidConfiguration, RequestRejected, did_you_mean
from optillm_local.core.formats import JsonObject, ResponseFormat
from optillm_local.core.generation import Generation
from optillm_local.core.prompt import Prompt, Sampling
from optillm_local.core.thinking import CLOSE, OPEN, split_thinking
from optillm_local.core.usage import EngineStats
from optillm_local.engine.batch import Batch, checked
from optillm_local.engine.chat import ChatRenderer, Rendered
from optillm_local.engine.measuring import Measuring, Tape
from optillm_local.engine.scoring import Ids, read_sequences, score_sequences, variants
from optillm_local.engine.settings import EngineSettings
from optillm_local.engine.start import model_name, start_engine

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import StructuredOutputsParams

_MOST_BIASES = 1024  # of vLLM's V2 model runner, which more would take down


class VLLMClient(ModelClient):
    """A model run by vLLM inside this program.

    Making one loads the model and blocks meanwhile. It may be used from any event loop, asyncio or trio.

    Args:
        settings: how to set the engine up; None reads the environment.
        progress: told what is going on while the engine starts.
        **overrides: single settings, such as `model="Qwen/Qwen3-8B"`.

    Raises:
        ModelNotFound, EngineOutOfMemory, InvalidConfiguration: see `engine.start`.
    """

    def __init__(
        self,
        settings: EngineSettings | None = None,
        *,
        progress: Callable[[str], None] = lambda message: None,
        **overrides: Any,
    ) -> None:
        if settings and overrides:
            raise InvalidConfiguration("overrides", overrides, "pass them to EngineSettings.load, or no settings")
        self.settings = settings or EngineSettings.load(**overrides)
        self._handle = start_engine(self.settings, progress)
        self.model = model_name(self.settings)
        self.tokenizer = self._handle.tokenizer
        config = self._handle.config
        self.max_model_len: int = config.model_config.max_model_len
        self._vocabulary: int = config.model_config.get_vocab_size()
        self._runner_v2: bool = config.use_v2_model_runner
        self._chat = ChatRenderer(self.tokenizer, self.settings.chat_template_kwargs)
        self._top_k_running = self._label_reads_running = 0
        self._measuring: Measuring | None = None
        if config.model_config.logits_processors:
            self._measuring = Measuring(self.max_model_len, self.tokenizer.eos_token_id)

    def encode(self, text: str) -> Ids:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def stats(self) -> EngineStats:
        return self._handle.counters.snapshot()

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._handle.close)
        if self._measuring:
            self._measuring.close()

    def render(self, prompt: Prompt) -> list[int]:
        """The token ids a prompt reaches the engine as.

        Raises:
            RequestRejected: longer than the model's context, refused by its chat template, or to be answered in a
                form but inside a thought.
        """
        return self._render(prompt).ids

    def _render(self, prompt: Prompt, *, think: bool = True) -> Rendered:
        form = prompt.sampling.response_format
        rendered = self._chat.render(prompt.conversation, prompt.tools, think=think and form is None)
        if think and form is not None and rendered.opens_thinking:
            raise RequestRejected("response_format", form.kind, f"close the thought it would be in with {CLOSE}")
        self._check_length(len(rendered.ids))
        return rendered

    @asynccontextmanager
    async def _open(self, prompts: Sequence[Prompt], report_every: int) -> AsyncIterator[Generation]:
        shown = [(p.conversation, p.tools, p.sampling.response_format is None) for p in prompts]
        rendered: dict[Any, Rendered] = {}
        for key, prompt in zip(shown, prompts, strict=True):  # siblings share their messages
            if key not in rendered:
                rendered[key] = self._render(prompt)
        asked = [rendered[key] for key in shown]
        ids, opened = [one.ids for one in asked], [one.opens_thinking for one in asked]
        with self._taped(prompts, ids) as tapes:
            params = [self._params(p.sampling, tape, report_every) for p, tape in zip(prompts, tapes, strict=True)]
            top_k = any(one.logprobs for one in params)
            self._top_k_running += top_k
            try:
                # A label read in the same step would overwrite the top-k of its neighbours on the V1 runner.
                while top_k and self._label_reads_running and not self._runner_v2:
                    await self._label_reads_done.wait()
                batch = Batch(self._handle, ids, params, [self._lora(prompt.adapter) for prompt in prompts])
                yield _Sequences(batch, prompts, ids, tapes, self.tokenizer, opened)
            finally:
                self._top_k_running -= top_k

    @contextmanager
    def _taped(self, prompts: Sequence[Prompt], ids: Sequence[list[int]]) -> Iterator[list[Tape | None]]:
        """A tape for each sequence that gets one, while they run.

        A step in flight may still write for a sequence that has ended; who has its rows next is in later steps.
        """
        tapes: list[Tape | None] = []
        try:
            for prompt, one in zip(prompts, ids, strict=True):
                tapes.append(self._tape(prompt.sampling, len(one)))
            yield tapes
        finally:
            for tape in filter(None, tapes):
                tape.close()

    async def _choose(self, prompt: Prompt, options: Sequence[str]) -> Choice:
        prefix = self._render(prompt, think=False).ids
        spellings = {option: self._spellings(option) for option in options}
        sequences = sorted({ids for group in spellings.values() for ids in group})
        submit = self._submit(prompt)
        # Speculative decoding returns no label reads.
        if (self._top_k_running and not self._runner_v2) or self.settings.speculative_config:
            scored = await score_sequences(submit, prefix, sequences, runner_v2=self._runner_v2)
            logprob = {ids: math.fsum(each) for ids, (each, _) in zip(sequences, scored, strict=True)}
            usage = sum((used for _, used in scored[1:]), start=scored[0][1])
        else:
            with self._reading_labels():
                logprob, usage = await read_sequences(submit, prefix, sequences)
        weight = {o: math.fsum(math.exp(logprob[ids]) for ids in group) for o, group in spellings.items()}
        mass = math.fsum(weight.values())
        shares = {o: w / mass if mass > 0 else 1 / len(options) for o, w in weight.items()}
        return Choice(shares, min(mass, 1.0), usage)

    async def _score(self, prompt: Prompt, continuations: Sequence[str]) -> list[Score]:
        prefix = self._render(prompt, think=False).ids
        sequences = [self.encode(text) for text in continuations]
        self._check_length(len(prefix) + max(map(len, sequences)))
        found = await score_sequences(self._submit(prompt), prefix, sequences, runner_v2=self._runner_v2)
        return [Score(ids, scores, used) for ids, (scores, used) in zip(sequences, found, strict=True)]

    @contextmanager
    def _reading_labels(self) -> Iterator[None]:
        if not self._label_reads_running:
            self._label_reads_done = anyio.Event()
        self._label_reads_running += 1
        try:
            yield
        finally:
            self._label_reads_running -= 1
            if not self._label_reads_running:
                self._label_reads_done.set()

    def _submit(self, prompt: Prompt) -> Callable[[Sequence[list[int]], Sequence[SamplingParams]], Batch]:
        lora = self._lora(prompt.adapter)
        return lambda ids, params: Batch(self._handle, ids, params, [lora] * len(ids))

    def _spellings(self, option: str) -> set[Ids]:
        """As it is given, exactly; in another case where that is one token, and so costs no further request."""
        as_given, *_ = variants(option)
        given = {self.encode(space + as_given) for space in ("", " ")}
        return given | {ids for text in variants(option) if len(ids := self.encode(text)) == 1}

    def _check_length(self, tokens: int) -> None:
        if tokens >= self.max_model_len:
            raise RequestRejected(
                "messages",
                f"{tokens} tokens",
                f"the context holds {self.max_model_len} with at least one for the answer; shorten the prompt by "
                f"{tokens - self.max_model_len + 1} tokens or raise max_model_len",
            )

    def _tape(self, sampling: Sampling, prompt_tokens: int) -> Tape | None:
        limit = self.settings.max_logprobs
        for name in ("logprobs", "statistics"):
            if (asked := getattr(sampling, name)) is not None and asked > limit:
                raise RequestRejected(name, asked, f"at most {limit}; raise the setting max_logprobs")
        return self._measuring.tape(sampling, prompt_tokens) if self._measuring else None

    def _params(self, sampling: Sampling, tape: Tape | None, report_every: int) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        logprobs = sampling.alternatives if tape is None else sampling.logprobs
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop),
            seed=sampling.seed,
            logprobs=logprobs,
            flat_logprobs=logprobs is not None,
            extra_args=None if tape is None else tape.ask.packed(),
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            logit_bias=self._bias(sampling),
            structured_outputs=_form(sampling.response_format),
            output_kind=RequestOutputKind.DELTA,
            stream_interval=report_every,
            skip_clone=True,
        )

    def _bias(self, sampling: Sampling) -> dict[int, float] | None:
        biases = dict(sampling.logit_bias)
        if not biases:
            return None
        if self.settings.speculative_config:
            raise RequestRejected(
                "logit_bias", biases, "not with speculative decoding; leave out the setting speculative_config"
            )
        if len(biases) > _MOST_BIASES:
            raise RequestRejected("logit_bias", f"{len(biases)} tokens", f"at most {_MOST_BIASES}; name fewer")
        if (last := max(biases)) >= self._vocabulary:
            raise RequestRejected("logit_bias", last, f"the model's token ids end at {self._vocabulary - 1}")
        return biases

    def _lora(self, adapter: str | None) -> LoRARequest | None:
        if adapter is None:
            return None
        modules = self.settings.lora_modules
        if adapter not in modules:
            raise RequestRejected("adapter", adapter, did_you_mean(adapter, modules))
        from vllm.lora.request import LoRARequest

        return LoRARequest(adapter, 1 + list(modules).index(adapter), str(Path(modules[adapter]).expanduser()))


class _Sequences(Generation):
    """Outputs of a batch as response events."""

    def __init__(
        self,
        batch: Batch,
        prompts: Sequence[Prompt],
        ids: Sequence[list[int]],
        tapes: Sequence[Tape | None],
        tokenizer: Any,
        opened: Sequence[bool],
    ) -> None:
        self._batch, self._prompts, self._tokenizer, self._opened = batch, prompts, tokenizer, opened
        self._tapes = tapes
        self._prompt_tokens = [len(one) for one in ids]
        self._transcripts = [Transcript() for _ in prompts]
        self._ready: deque[tuple[int, ResponseEvent]] = deque()

    def stop(self, index: int | None = None, because: str = UNNEEDED) -> None:
        self._batch.abort(index)

    async def __anext__(self) -> tuple[int, ResponseEvent]:
        while not self._ready:
            index, output = await self._batch.next()
            try:
                if isinstance(output, ClientError):
                    raise output
                checked(output)
            except ClientError:
                partial = self._transcripts[index].finish("abort", prompt_tokens=0)
                self._ready.append((index, Completed(partial)))
                raise
            self._ready.extend((index, event) for event in self._events(index, output))
        return self._ready.popleft()

    def _events(self, index: int, output: RequestOutput) -> list[ResponseEvent]:
        events: list[ResponseEvent] = []
        [piece] = output.outputs
        if piece.token_ids or piece.text:
            sampled, alternatives = _logprobs(piece.logprobs)
            tape, tokens = self._tapes[index], tuple(piece.token_ids)
            statistics = tape.next(len(tokens)) if tape and tokens else None
            delta = OutputTextDelta(piece.text, tokens, sampled, alternatives, statistics)
            self._transcripts[index].add(delta)
            events.append(delta)
        if output.finished:
            events.append(Completed(self._completion(index, output)))
        return events

    def _completion(self, index: int, output: RequestOutput) -> Completion:
        transcript = self._transcripts[index]
        thinking = split_thinking("".join(transcript.text), opened=self._opened[index])
        reason = output.outputs[0].finish_reason
        finish: FinishReason = reason if reason in ("length", "abort") else "stop"
        if (tape := self._tapes[index]) and tape.is_ended:
            finish = "abort"  # below its floor
        decoded = bool(transcript.token_ids)  # what was ended in the queue has not been prefilled
        return transcript.finish(
            finish,
            prompt_tokens=self._prompt_tokens[index] if decoded else 0,
            cached_tokens=(output.num_cached_tokens or 0) if decoded else 0,
            reasoning=thinking.reasoning,
            answer=thinking.answer,
            reasoning_tokens=self._count_reasoning(index) if thinking.reasoning else 0,
            seed=self._prompts[index].sampling.seed,
        )

    def _count_reasoning(self, index: int) -> int:
        """Tokens up to the one that completes the closing tag, the opening tag left out."""
        ids = self._transcripts[index].token_ids
        begun = self._opened[index] or OPEN not in self._tokenizer.decode(ids, skip_special_tokens=False)
        start = 0 if begun else _tokens_until(self._tokenizer, ids, OPEN)
        return _tokens_until(self._tokenizer, ids, CLOSE) - start


def _form(asked: ResponseFormat | None) -> StructuredOutputsParams | None:
    """What a response format is to vLLM."""
    if asked is None:
        return None
    from vllm.sampling_params import StructuredOutputsParams

    match asked.value:
        case JsonObject() as schema:
            return StructuredOutputsParams(json=schema.text)
        case str() as regex:
            return StructuredOutputsParams(regex=regex)
        case tuple() as texts:
            return StructuredOutputsParams(choice=list(texts))
        case _:
            return StructuredOutputsParams(json_object=True)


def _tokens_until(tokenizer: Any, ids: list[int], tag: str) -> int:
    """How many tokens it takes for `tag` to appear; all if it does not. Bisection over decoded prefixes."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if tag in tokenizer.decode(ids[:middle], skip_special_tokens=False):
            high = middle
        else:
            low = middle + 1
    return low


def _logprobs(flat: Any) -> tuple[tuple[float, ...], tuple[tuple[tuple[int, float], ...], ...]]:
    """Of vLLM's flat record: the sampled token's log-probability, which stands first, and the alternatives."""
    if flat is None:
        return (), ()
    sampled = tuple(flat.logprobs[start] for start in flat.start_indices)
    spans = list(zip(flat.start_indices, flat.end_indices, strict=True))
    if all(end - start == 1 for start, end in spans):
        return sampled, ()
    return sampled, tuple(
        tuple(zip(flat.token_ids[start + 1 : end], flat.logprobs[start + 1 : end], strict=True))
        for start, end in spans
    )
