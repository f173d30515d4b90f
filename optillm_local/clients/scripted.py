"""A model that says what it is told, on virtual time: for tests, demonstrations and dry runs.

It behaves like a small continuous-batching engine. All sequences that are open advance by one token per
step, a step takes `seconds_per_token` on a clock that only moves when every sequence waits, and the counters
are those of a real engine. So a test can state that three explorations take as long as one.
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import anyio
from anyio.lowlevel import checkpoint

from optillm_local.core.completion import (
    Choice,
    Completed,
    FinishReason,
    OutputTextDelta,
    ResponseEvent,
    Score,
    Transcript,
)
from optillm_local.core.errors import ClientError, InvalidConfiguration
from optillm_local.core.prompt import Prompt
from optillm_local.core.streaming import StreamingClient
from optillm_local.core.thinking import is_thinking, split_thinking
from optillm_local.core.usage import EngineStats, TokenUsage


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says, and how sure it is: `logprobs` in nats of its first tokens, `logprob` of each other."""

    text: str
    logprob: float = -0.1
    logprobs: tuple[float, ...] = ()


Answers = Callable[[Prompt], str | Reply] | Sequence[str | Reply] | Mapping[str, str | Reply]
Choices = Callable[[Prompt, Sequence[str]], Mapping[str, float]] | Mapping[str, float]


class _Steps:
    """A clock that advances by one step once everybody who is awake waits for the next one."""

    _PASSES = 32  # turns of the event loop in which a task may react to the last step before the next

    def __init__(self) -> None:
        self.now = 0
        self._next = anyio.Event()
        self._driven = False
        self._holders = self._released = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """No step is taken meanwhile."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._released += 1

    async def _settle(self) -> None:
        """Let every task react to the last step, and to the end of each hold since."""
        settled = False
        while not settled:
            released = self._released
            if self._holders:
                await anyio.sleep(0.001)
            for _ in range(self._PASSES):
                await checkpoint()
            settled = not self._holders and released == self._released

    async def tick(self) -> None:
        """Wait for the next step. The first to wait drives the clock for all."""
        target = self.now + 1
        while self.now < target:
            if self._driven:
                await self._next.wait()
                continue
            self._driven = True
            try:
                await self._settle()
                self.now += 1
            finally:  # if the driver is cancelled, the others wake up and one of them drives
                self._driven = False
                self._next.set()
                self._next = anyio.Event()


class ScriptedClient(StreamingClient):
    """Answers from a script, whatever `logit_bias`, `response_format` and `tools` say.

    What was asked is kept in `prompts`, in order.

    Args:
        answers: a function of the prompt (its `sampling.seed` tells siblings apart); or texts, one per sequence in
            the order they start; or a mapping from a part of the question to the text (the first that fits).
        choices: probabilities for `choose`, as a function of prompt and options or a mapping; what they lack
            of 1 is the missing label mass. Without it all options are equally likely.
        seconds_per_token: virtual seconds per step.
    """

    def __init__(
        self,
        answers: Answers,
        *,
        choices: Choices | None = None,
        seconds_per_token: float = 0.01,
        model: str = "scripted",
    ) -> None:
        if not seconds_per_token >= 0:
            raise InvalidConfiguration("seconds_per_token", seconds_per_token, "must be a number, 0 or more")
        self.model = model
        self.virtual_time = True
        self.peak_concurrency = 0
        self.prompts: list[Prompt] = []
        self._answers, self._choices = answers, choices
        self._turns = itertools.count()
        self._vocabulary: dict[int, str] = {}
        self._seconds_per_token = seconds_per_token
        self._steps = _Steps()
        self._open_sequences = 0
        self._stats = EngineStats()
        self._closed = False

    def encode(self, text: str) -> tuple[int, ...]:
        pieces = _tokens(text)
        self._vocabulary |= {_token_id(piece): piece for piece in pieces}
        return tuple(map(_token_id, pieces))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text; of a token that was never in any, its id in angle brackets."""
        return "".join(self._vocabulary.get(token, f" <{token}>") for token in token_ids)

    def clock(self) -> float:
        """Virtual seconds since the client was made."""
        return self._steps.now * self._seconds_per_token

    def clock_held(self) -> AbstractContextManager[None]:
        """Steps wait for the end of the block."""
        return self._steps.held()

    def stats(self) -> EngineStats:
        """What an engine would have counted; the script has no prefix cache."""
        return replace(
            self._stats,
            steps=self._steps.now,
            running=self._open_sequences,
            peak_running=self.peak_concurrency,
        )

    async def close(self) -> None:
        """Refuse what is asked from now on."""
        self._closed = True

    def _count(self, prompt: Prompt) -> int:
        return sum(len(_tokens(m.content)) for m in prompt.conversation)

    def _stream(self, prompt: Prompt) -> AsyncGenerator[ResponseEvent, None]:
        self._note(prompt)
        # The reply is taken now and not when the task runs: event loops start siblings in any order.
        return self._decode(prompt, self._reply(prompt))

    async def _decode(self, prompt: Prompt, reply: Reply) -> AsyncGenerator[ResponseEvent, None]:
        prompt_tokens = self._begin(prompt)
        self.encode(reply.text)  # what it says can be decoded
        transcript, said, shown = Transcript(), "", 0
        deltas = list(_deltas(reply, prompt.sampling.alternatives))
        finish: FinishReason = "length" if len(deltas) >= prompt.sampling.max_tokens else "stop"
        del deltas[prompt.sampling.max_tokens :]
        try:
            for left, delta in zip(reversed(range(len(deltas))), deltas, strict=True):
                await self._steps.tick()
                self._stats = replace(self._stats, generated_tokens=self._stats.generated_tokens + 1)
                said += delta.delta
                end, stopped = _end_of_answer(said, prompt.sampling.stop, is_whole=not left)
                transcript.add(delta := replace(delta, delta=said[shown:end]))
                shown = end
                yield delta
                if stopped:
                    finish = "stop"
                    break
        finally:
            self._open_sequences -= 1
        begun = prompt.messages[-1].content if prompt.messages[-1].role == "assistant" else ""
        thinking = split_thinking("".join(transcript.text), opened=is_thinking(begun))
        yield Completed(
            transcript.finish(
                finish,
                prompt_tokens=prompt_tokens,
                reasoning=thinking.reasoning,
                answer=thinking.answer,
                reasoning_tokens=len(_tokens(thinking.reasoning)),
                seed=prompt.sampling.seed,
            )
        )

    async def _choose(self, prompt: Prompt, options: Sequence[str]) -> Choice:
        self._note(prompt)
        tokens = self._begin(prompt)
        await self._read()
        if self._choices is None:
            given: Mapping[str, float] = {option: 1 / len(options) for option in options}
        else:
            given = self._choices(prompt, options) if callable(self._choices) else self._choices
        mass = math.fsum(given.get(option, 0.0) for option in options)
        shares = {option: given.get(option, 0.0) / mass if mass else 1 / len(options) for option in options}
        return Choice(shares, mass, TokenUsage(prompt=tokens, completion=1, discarded=1))

    async def _score(self, prompt: Prompt, continuations: Sequence[str]) -> list[Score]:
        self._note(prompt)
        prompt_tokens = [self._begin(prompt, text) for text in continuations]
        await self._read(len(continuations))
        scores = []
        for text, tokens in zip(continuations, prompt_tokens, strict=True):
            ids = tuple(_token_id(piece) for piece in _tokens(text))
            usage = TokenUsage(prompt=tokens, completion=1, discarded=1)
            scores.append(Score(ids, tuple(-len(piece) / 10 for piece in _tokens(text)), usage))
        return scores

    def _note(self, prompt: Prompt) -> None:
        if self._closed:
            raise ClientError("the client is closed; make a new one")
        self.prompts.append(prompt)

    def _begin(self, prompt: Prompt, continuation: str = "") -> int:
        """One more sequence is open; returns the tokens it has from the start."""
        self._open_sequences += 1
        self.peak_concurrency = max(self.peak_concurrency, self._open_sequences)
        tokens = self._count(prompt) + len(_tokens(continuation))
        self._stats = replace(self._stats, computed_prompt_tokens=self._stats.computed_prompt_tokens + tokens)
        return tokens

    async def _read(self, sequences: int = 1) -> None:
        """One step in which each sequence only has its next-token probabilities read."""
        try:
            await self._steps.tick()
            self._stats = replace(self._stats, generated_tokens=self._stats.generated_tokens + sequences)
        finally:
            self._open_sequences -= sequences

    def _reply(self, prompt: Prompt) -> Reply:
        answers = self._answers
        if callable(answers):
            found: str | Reply = answers(prompt)
        elif isinstance(answers, Mapping):
            keys = [key for key in answers if key in prompt.question]
            if not keys:
                raise ClientError(f"the script has no answer for {prompt.question!r}; it knows {list(answers)}")
            found = answers[keys[0]]
        else:
            turn = next(self._turns)
            if turn >= len(answers):
                raise ClientError(f"the script has {len(answers)} answers and was asked for number {turn + 1}")
            found = answers[turn]
        return found if isinstance(found, Reply) else Reply(found)


def _tokens(text: str) -> list[str]:
    """Words with the white space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


def _token_id(piece: str) -> int:
    return zlib.crc32(piece.encode()) % 50_000


def _deltas(reply: Reply, alternatives: int | None) -> Iterator[OutputTextDelta]:
    sure = itertools.chain(reply.logprobs, itertools.repeat(reply.logprob))
    for piece, logprob in zip(_tokens(reply.text), sure, strict=False):
        token = _token_id(piece)
        top: tuple[tuple[tuple[int, float], ...], ...] = ()
        if alternatives:
            rest = math.log(max(1e-9, -math.expm1(logprob)) / alternatives)
            others = tuple((token + i, rest) for i in range(1, alternatives))
            top = (((token, logprob), *others),)
        yield OutputTextDelta(piece, (token,), () if alternatives is None else (logprob,), top)


def _end_of_answer(text: str, stops: Sequence[str], *, is_whole: bool) -> tuple[int, bool]:
    """Where the answer in a text ends, and whether a stop text ends it: what may become one is held back."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    if found:
        return min(found), True
    held = 0 if is_whole else max((len(stop) - 1 for stop in stops), default=0)
    return max(0, len(text) - held), False
