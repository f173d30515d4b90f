"""What is asked: messages and how to sample."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from optillm_local.core.errors import RequestRejected, did_you_mean
from optillm_local.core.formats import JsonObject, ResponseFormat
from optillm_local.core.statistics import Floor

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        content: the text.
        token_ids: of an assistant turn that this engine generated, the ids it generated. A follow-up
            continues from them and not from re-tokenised text, so that they are prefix-cache hits.
        appended: the end of `content` that `token_ids` do not cover: words put into the model's mouth.
    """

    role: Role
    content: str
    token_ids: tuple[int, ...] = ()
    appended: str = ""

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise RequestRejected("role", self.role, did_you_mean(str(self.role), get_args(Role)))
        if not isinstance(self.content, str):
            raise RequestRejected("content", self.content, "the content of a message is text")
        if not self.content.endswith(self.appended):
            raise RequestRejected("appended", self.appended, "must be the end of the content")

    def plus(self, text: str) -> Message:
        """The turn with words put into the speaker's mouth; what was generated before them keeps its ids."""
        return replace(self, content=self.content + text, appended=self.appended + text if self.token_ids else "")

    def followed_by(self, rest: Message) -> Message:
        """One turn made of two: the speaker's words and what was generated behind them."""
        if rest.token_ids and self.token_ids and not self.appended:
            return replace(rest, content=self.content + rest.content, token_ids=self.token_ids + rest.token_ids)
        return self.plus(rest.content)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the answer is drawn. Refused values name field, value and remedy.

    Attributes:
        temperature: 0 (greedy) to 2.
        top_p: nucleus, in (0, 1].
        top_k: keep the k most probable tokens; 0 keeps all.
        min_p: keep tokens with at least this share of the top token's probability, in [0, 1].
        max_tokens: most tokens to generate; generation also ends where the model's context does.
        stop: texts that end the answer; they are not part of it.
        seed: sequence i of a group draws with `seed + i`; None lets the engine choose.
        logprobs: alternatives to report per token, beside the sampled token's own log-probability;
            0 reports only that, None reports nothing and saves the engine the work.
        statistics: how sure the model is of each token is to be measured over that many alternatives, without
            listing them; a client that cannot measure lists them.
        floor: a client that measures ends a sequence as `abort` at the token where its confidence falls below;
            whoever asks has to watch as well: others do not, nor does it over more than 2048 tokens, with
            penalties, `logit_bias` or `response_format`, or where the model has no end token. Needs `statistics`.
        presence_penalty, frequency_penalty: as in the OpenAI API, -2 to 2.
        logit_bias: what is added to the logits of tokens, by id, -100 to 100; a mapping becomes pairs in the order
            of the ids. Log-probabilities are those before it.
        response_format: the form the answer must have; it begins at once, without a thought before it.
            Log-probabilities are over the tokens that the form allows: all others have minus infinity.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = 0
    statistics: int | None = None
    floor: Floor | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | tuple[tuple[int, float], ...] = ()
    response_format: ResponseFormat | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            raise RequestRejected("stop", self.stop, f"pass a sequence of texts: ({self.stop!r},)")
        object.__setattr__(self, "stop", tuple(self.stop or ()))
        self._between("temperature", 0.0, 2.0)
        self._between("top_p", 0.0, 1.0)
        if self.top_p == 0:
            raise RequestRejected("top_p", self.top_p, "must be above 0; use temperature=0 for greedy decoding")
        self._between("min_p", 0.0, 1.0)
        self._between("presence_penalty", -2.0, 2.0)
        self._between("frequency_penalty", -2.0, 2.0)
        self._whole("max_tokens", 1)
        self._whole("top_k", 0)
        if self.logprobs is not None:
            self._whole("logprobs", 0)
        if self.statistics is not None:
            self._whole("statistics", 1)
        if self.floor is not None:
            self._check_floor(self.floor)
        if self.seed is not None:
            self._whole("seed", 0)
        if any(not isinstance(text, str) or not text for text in self.stop):
            raise RequestRejected("stop", self.stop, "every stop text must be a non-empty string")
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        if not isinstance(self.response_format, ResponseFormat | None):
            raise RequestRejected("response_format", self.response_format, "pass a ResponseFormat(kind, value)")

    def _check_floor(self, floor: Floor) -> None:
        if self.statistics is None:
            raise RequestRejected("floor", floor, "also set statistics, over how many alternatives")
        if not isinstance(floor.confidence, int | float) or math.isnan(floor.confidence):
            raise RequestRejected("floor", floor, "its confidence must be a number")
        if not isinstance(floor.window, int) or floor.window < 1:
            raise RequestRejected("floor", floor, "its window must be a whole number of tokens, at least 1")

    def _between(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise RequestRejected(name, value, "must be a finite number")
        if not low <= value <= high:
            raise RequestRejected(name, value, f"must be between {low:g} and {high:g}")

    def _whole(self, name: str, low: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RequestRejected(name, value, "must be a whole number")
        if not low <= value < 2**63:
            raise RequestRejected(name, value, f"must be at least {low} and fit into 64 bits")

    @property
    def reshapes(self) -> bool:
        """Whether penalties, biases or a format change the model's logits."""
        return bool(self.presence_penalty or self.frequency_penalty or self.logit_bias or self.response_format)

    @property
    def alternatives(self) -> int | None:
        """What a client that does not measure reports per token, in the place of `logprobs`."""
        return self.logprobs if self.statistics is None else max(self.logprobs or 0, self.statistics)

    def but(self, **changes: Any) -> Sampling:
        """A copy with some fields changed.

        Raises:
            RequestRejected: an unknown field ("did you mean") or a value that cannot work.
        """
        known = {f.name for f in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise RequestRejected(name, value, did_you_mean(name, known))
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation and how to answer it.

    A prompt that ends with an assistant message is continued: the model writes on where it stops.

    Attributes:
        messages: the conversation, oldest first; never flattened into one text.
        sampling: how the answer is drawn.
        instructions: if given, stands in for the system message.
        log_tag: appears in events and logs beside what this prompt produced.
        adapter: name of the LoRA module to answer with; None is the model itself.
        tools: what the model may call, each a JSON object such as the OpenAI API takes, for its chat template to
            present. A call comes back as text, in the model's own notation.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    instructions: str | None = None
    log_tag: str | None = None
    adapter: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.messages, str):
            raise RequestRejected("messages", self.messages, "pass messages, or use Prompt.of for a question")
        object.__setattr__(self, "messages", tuple(self.messages))
        if not self.messages:
            raise RequestRejected("messages", (), "a prompt needs at least one message")
        if all(not m.content and not m.token_ids for m in self.messages):
            raise RequestRejected("messages", self.messages, "every message is empty; ask something")
        if not isinstance(self.tools, list | tuple):
            raise RequestRejected("tools", self.tools, "pass a sequence of tools")
        object.__setattr__(self, "tools", tuple(JsonObject.of("tools", tool) for tool in self.tools))

    @classmethod
    def of(cls, query: str | Prompt | Iterable[Message], *, system: str | None = None, **sampling: Any) -> Prompt:
        """A prompt from a question, from messages, or from another prompt with other sampling."""
        if isinstance(query, Prompt):
            prompt = query if system is None else replace(query, instructions=system)
            return replace(prompt, sampling=prompt.sampling.but(**sampling))
        messages = (Message("user", query),) if isinstance(query, str) else tuple(query)
        return cls(messages, Sampling().but(**sampling), instructions=system)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages as the model gets them: `instructions` in the place of system messages."""
        if self.instructions is None:
            return self.messages
        rest = tuple(m for m in self.messages if m.role != "system")
        return (Message("system", self.instructions), *rest)

    @property
    def question(self) -> str:
        """The last user message, or the last message if no user spoke."""
        said = [m.content for m in self.messages if m.role == "user"] or [self.messages[-1].content]
        return said[-1]

    def then(self, *messages: Message) -> Prompt:
        """The conversation with further messages; an assistant's behind an assistant's continues it."""
        *before, last = self.messages
        if messages and messages[0].role == last.role == "assistant":
            last, messages = last.followed_by(messages[0]), messages[1:]
        return replace(self, messages=(*before, last, *messages))

    def instructed(self, text: str) -> Prompt:
        """The question with an instruction behind it, so that all who are asked share all before it."""
        *before, last = self.messages
        if last.role != "user":
            return self.then(Message("user", text))
        return replace(self, messages=(*before, Message("user", f"{last.content}\n\n{text}")))

    def but(self, *, log_tag: str | None = None, **sampling: Any) -> Prompt:
        """A copy with other sampling fields or another tag."""
        return replace(self, sampling=self.sampling.but(**sampling), log_tag=log_tag or self.log_tag)

    def with_logprobs(self) -> Prompt:
        """A copy that reports the log-probability of each token."""
        return self if self.sampling.logprobs is not None else self.but(logprobs=0)

    def measured(self, alternatives: int) -> Prompt:
        """A copy that has the model's confidence measured, over at least so many alternatives per token."""
        return self.but(statistics=max(alternatives, self.sampling.statistics or 0))

    def step(self, name: str, *key: object, at_most: int | None = None, **sampling: Any) -> Prompt:
        """A copy for one step of an optimizer: tagged `name`, with a seed of its own that `name` and `key` fix.

        Args:
            name: what the step is called in events and logs.
            *key: tells apart the times this step is taken, such as (round, agent).
            at_most: a limit on tokens beside the prompt's own.
            **sampling: fields of `Sampling` to change.
        """
        if at_most is not None:
            sampling["max_tokens"] = min(self.sampling.max_tokens, at_most)
        if self.sampling.seed is not None:
            named = zlib.crc32("/".join(map(str, (name, *key))).encode())
            sampling.setdefault("seed", (self.sampling.seed + named) % 2**31)
        return self.but(log_tag=name, **sampling)

    def seeded(self, seed: int | None = None) -> Prompt:
        """A copy that draws with `seed`; without one, with its own; without that, with one drawn now."""
        if seed is None:
            seed = self.sampling.seed
        return self.but(seed=random.SystemRandom().randrange(2**31) if seed is None else seed)

    def fan(self, n: int) -> list[Prompt]:
        """n copies for n sequences; copy i draws with `seed + i` where there is a seed."""
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise RequestRejected("n", n, "must be a whole number of at least 1")
        seed = self.sampling.seed
        return [self if seed is None else self.but(seed=seed + i) for i in range(n)]


def _biases(given: Any) -> tuple[tuple[int, float], ...]:
    """What is added to the logits of tokens, in the order of their ids."""
    try:
        biases = dict(given or ())
    except (TypeError, ValueError):
        raise RequestRejected("logit_bias", given, "pass a mapping from token ids to biases") from None
    for token, bias in biases.items():
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise RequestRejected(
                "logit_bias", given, f"{token!r} is no token id: those are whole numbers from 0 on"
            )
        if not isinstance(bias, int | float) or isinstance(bias, bool) or not -100 <= bias <= 100:
            raise RequestRejected("logit_bias", given, f"of token {token}, must be a number between -100 and 100")
    return tuple(sorted((token, float(bias)) for token, bias in biases.items()))
