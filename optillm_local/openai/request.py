"""What may be asked: every parameter of OpenAI's API is either honoured or refused by name, none is ignored."""

from __future__ import annotations

import reprlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from optillm_local.core.budget import Budget
from optillm_local.core.errors import InvalidConfiguration, RequestRejected, did_you_mean
from optillm_local.core.formats import ResponseFormat
from optillm_local.core.prompt import Message, Prompt, Sampling
from optillm_local.openai.messages import conversation

MAX_TOKENS = 4096
"""Of a chat that sets no limit: what optillm allows a call. OpenAI's old completions have 16."""
MOST_CHOICES = 4096
LONGEST_APPROACH = 200

_OLD_TOOLS = "pass tools instead"
_NO_SEARCH = "nothing here reaches beyond the model"
_TEXT_ONLY = "the model reads and writes text"
_REFUSED: Mapping[
    str, tuple[tuple[Any, ...], str]
] = {  # the values that change nothing, and the remedy for others
    "audio": ((), _TEXT_ONLY),
    "modalities": ((["text"],), _TEXT_ONLY),
    "functions": (([],), _OLD_TOOLS),
    "function_call": (("none",), _OLD_TOOLS),
    "parallel_tool_calls": ((True,), "a call comes back as text, and as many as the model writes"),
    "prediction": ((), "leave it out; the engine's setting speculative_config predicts"),
    "reasoning_effort": ((), "choose an optimizer instead, such as thinkdeeper or autothink"),
    "verbosity": (("medium",), "ask for it in a message"),
    "web_search_options": ((), _NO_SEARCH),
    "moderation": ((), _NO_SEARCH),
    "store": ((False,), "answers are not kept"),
    "service_tier": (("auto", "default"), "all requests share one batch"),
    "prompt_cache_options": ((), "the prefix cache is always on"),
    "prompt_cache_retention": (("in_memory",), "the prefix cache lives in memory"),
    "best_of": ((1,), 'choose the optimizer instead: optillm_approach="best_of_n"'),
    "echo": ((False,), "answers do not repeat the prompt"),
    "suffix": (("",), "the model writes forward only"),
}


class StreamOptions(BaseModel):
    """What a stream holds besides text.

    `include_events` is ours: chunks without choices that carry an event of the run as `optillm_event`.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    include_usage: bool = False
    include_events: bool = False
    include_obfuscation: bool = Field(False, description="false is the only value: nothing is sent over a network")

    def model_post_init(self, context: object) -> None:
        if self.include_obfuscation:
            raise RequestRejected("stream_options.include_obfuscation", True, "chunks are never padded")


class Spending(BaseModel):
    """Limits on one request; see `core.budget.Budget`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    tokens: int | None = None
    seconds: float | None = None


class _Request(BaseModel):
    """What both kinds have. Null is as good as absent; what is left over are options of the optimizer."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    model: str = Field("", max_length=1024, description="a model, or OPTIMIZER-MODEL; empty: the model there is")
    n: int = Field(1, ge=1, le=MOST_CHOICES, description="choices, side by side in one batch")
    temperature: float | None = Field(None, description="0 to 2; null: 1")
    top_p: float | None = None
    top_k: int | None = Field(None, description="as vLLM has it: only the k likeliest tokens; 0: all")
    min_p: float | None = Field(
        None, description="as vLLM has it: at least this share of the likeliest token's odds"
    )
    stop: str | list[str] | None = None
    seed: int | None = Field(None, description="choice i of a plain model draws with seed + i")
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = Field(None, description="by token id, -100 to 100")
    stream: bool = False
    stream_options: StreamOptions | None = None
    metadata: dict[str, str] | None = Field(None, description="comes back in the answer")
    user: str | None = Field(None, description="a label; as with OpenAI, no part of the answer depends on it")
    safety_identifier: str | None = Field(None, description="a label, as `user`")
    prompt_cache_key: str | None = Field(None, description="a label: equal prefixes share the cache without it")
    optillm_approach: str | None = Field(
        None, max_length=LONGEST_APPROACH, description="an optimizer, or a combination such as bon|moa"
    )
    optillm_budget: Spending | None = Field(None, description="limits on tokens and seconds of this request")

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """A request from a JSON body, or from keyword arguments.

        Raises:
            RequestRejected: names the parameter, its value and the remedy.
        """
        if not isinstance(body, Mapping):
            raise RequestRejected("body", _short(body), "send a JSON object")
        given = {name: value for name, value in body.items() if value is not None}
        for name, value in given.items():
            _check_unicode(name, value)
            neutral, remedy = _REFUSED.get(name, ((value,), ""))
            if value not in neutral:
                raise RequestRejected(name, _short(value), remedy)
        try:
            request = cls.model_validate({name: value for name, value in given.items() if name not in _REFUSED})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise RequestRejected(name, _short(first["input"]), first["msg"]) from None
        request.prompts()  # what is wrong with it is told now
        _ = request.budget
        return request

    def model_post_init(self, context: object) -> None:
        if self.stream_options and not self.stream:
            raise RequestRejected("stream_options", self.stream_options.model_dump(), "goes with stream=true")

    @property
    def options(self) -> dict[str, Any]:
        """Options of the optimizer, and whatever else is no parameter: who makes the optimizer refuses it."""
        return dict(self.model_extra or {})

    @property
    def budget(self) -> Budget:
        """The limits that the request sets itself."""
        asked = self.optillm_budget or Spending()
        try:
            return Budget(asked.tokens, asked.seconds)
        except InvalidConfiguration as error:
            raise RequestRejected(f"optillm_{error.field.replace(' ', '.')}", error.value, error.remedy) from None

    @property
    @abstractmethod
    def limit(self) -> int:
        """Most tokens of an answer."""

    @property
    @abstractmethod
    def alternatives(self) -> int | None:
        """Of each token, how many alternatives are listed; None: log-probabilities are not asked for."""

    @abstractmethod
    def prompts(self) -> list[Prompt]:
        """What to answer: one prompt for a chat, one per text for completions as of old."""

    def sampling(self) -> Sampling:
        """How the answer is drawn."""
        names = (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "seed",
            "presence_penalty",
            "frequency_penalty",
        )
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        biases = {_token(token): bias for token, bias in (self.logit_bias or {}).items()}
        return Sampling().but(max_tokens=self.limit, stop=tuple(stop), logit_bias=biases, **given)


class ChatRequest(_Request):
    """A chat completion: what `POST /v1/chat/completions` takes."""

    messages: list[Any] = Field(min_length=1)
    max_tokens: int | None = None
    max_completion_tokens: int | None = Field(None, description=f"thinking included; null: {MAX_TOKENS}")
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = Field(
        None, description="of type text, json_object, json_schema, and, as vLLM can, regex or choice"
    )
    tools: list[dict[str, Any]] | None = Field(
        None, description="for the model's chat template; a call comes back as text in the model's own notation"
    )
    tool_choice: Literal["auto", "none"] = Field("auto", description="none: as if there were no tools")

    def model_post_init(self, context: object) -> None:
        super().model_post_init(context)
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise RequestRejected("max_tokens", self.max_tokens, "differs from max_completion_tokens; give one")
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestRejected("top_logprobs", self.top_logprobs, "goes with logprobs=true")

    @property
    def limit(self) -> int:
        given = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        return MAX_TOKENS if given is None else given

    @property
    def alternatives(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def sampling(self) -> Sampling:
        return super().sampling().but(response_format=response_format(self.response_format or {"type": "text"}))

    def prompts(self) -> list[Prompt]:
        tools = () if self.tool_choice == "none" else self.tools or ()
        return [Prompt(conversation(self.messages), self.sampling(), tools=tuple(tools))]


class CompletionRequest(_Request):
    """A completion as of old: what `POST /v1/completions` takes.

    A model without a chat template continues the text; one with a template answers it as a question.
    """

    prompt: str | list[str]
    max_tokens: int = 16
    logprobs: int | None = Field(None, ge=0, le=20)

    @property
    def limit(self) -> int:
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        return self.logprobs

    def prompts(self) -> list[Prompt]:
        texts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if not texts or not all(texts):
            raise RequestRejected("prompt", self.prompt, "pass at least one text, and none that is empty")
        return [Prompt((Message("user", text),), self.sampling()) for text in texts]


def response_format(asked: Mapping[str, Any]) -> ResponseFormat | None:
    """The form of an answer, as OpenAI's API spells it; None is text of any form.

    Raises:
        RequestRejected: an unknown type, a part that is missing or one that does not belong there.
    """
    rest = dict(asked)
    kind = rest.pop("type", None)
    if kind not in _FORMATS:
        raise RequestRejected("response_format.type", _short(kind), did_you_mean(str(kind)[:40], _FORMATS))
    value = rest.pop(kind, None) if _FORMATS[kind] else None
    if rest:
        raise RequestRejected(f"response_format.{next(iter(rest))}", _short(rest), f"does not belong to {kind}")
    if kind == "text":
        return None
    if kind == "json_schema":
        if not isinstance(value, Mapping) or not isinstance(value.get("schema"), Mapping):
            raise RequestRejected("response_format.json_schema", _short(value), "pass {name, schema}")
        value = value["schema"]
    return ResponseFormat(kind, value)


_FORMATS = {"text": False, "json_object": False, "json_schema": True, "regex": True, "choice": True}
"""Types of `response_format`, and whether a field of that name says more."""


def _token(name: str) -> int:
    if not name.isdecimal() or len(name) > 18:
        raise RequestRejected("logit_bias", _short(name), "its keys are token ids")
    return int(name)


def _short(value: object) -> object:
    """A value as an error shows it: no more than a line of it."""
    return value if isinstance(value, int | float | bool) else reprlib.repr(value)


def _check_unicode(name: str, value: object) -> None:
    """Raises RequestRejected where text cannot be encoded: JSON may hold half of a surrogate pair."""
    todo = [name, value]
    while todo:
        one = todo.pop()
        if isinstance(one, Mapping):
            todo += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            todo += one
        elif isinstance(one, str) and any("\ud800" <= letter <= "\udfff" for letter in one):
            raise RequestRejected(
                ascii(name)[1:-1], ascii(one)[:80], "is not Unicode text: half of a surrogate pair"
            )
