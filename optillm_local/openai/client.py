"""Clients in the shape of the `openai` package's, over a model in this program."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
import openai
from anyio.from_thread import BlockingPortal, start_blocking_portal
from openai.pagination import AsyncPage, SyncPage
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from optillm_local.core.client import ModelClient
from optillm_local.core.errors import ClientError, InvalidConfiguration, RequestRejected
from optillm_local.openai.approach import NONE
from optillm_local.openai.calls import Completions
from optillm_local.openai.failures import raised_as_openai

T = TypeVar("T")
Whole = TypeVar("Whole")
Piece = TypeVar("Piece")


class AsyncOpenAI:
    """`openai.AsyncOpenAI`, answered by a model in this program.

    `chat.completions.create`, `completions.create` and `models.list` take the parameters of OpenAI's API and
    return the `openai` package's own types; its exceptions are raised, with ours as their cause.

    Args:
        client: the model, which stays open; without one, vLLM is started at the first call and closed with this.
        names: what requests may call the model; empty: its own name.
        approach: the optimizer that answers where a request names none.
        timeout: seconds that a call may take, or a stream may be silent; None: as long as it takes.
        api_key, max_retries: taken so that one import is all that changes. Nobody asks for a key, and nothing is
            sent that could be sent again.
        **settings: of the engine, such as `model="Qwen/Qwen3-8B"`; see `VLLMClient`.

    Raises:
        InvalidConfiguration: `settings` beside a client, or, at the first call, one that does not exist, such as
            `base_url`.
    """

    def __init__(
        self,
        client: ModelClient | None = None,
        *,
        names: Sequence[str] = (),
        approach: str = NONE,
        timeout: float | None = None,
        api_key: str | None = None,
        max_retries: int = 0,
        **settings: Any,
    ) -> None:
        if client and settings:
            raise InvalidConfiguration(
                "settings", sorted(settings), "a client that exists already has its settings"
            )
        self._model = _Model(client, names, approach, settings)
        self.chat = _AsyncChat(_AsyncCreate(self._model, Completions.chat, Completions.stream_chat, timeout))
        self.completions = _AsyncCreate(self._model, Completions.complete, Completions.stream_complete, timeout)
        self.models = _AsyncModels(self._model)

    async def close(self) -> None:
        """Refuse what is asked from now on, and close the engine if it was started here."""
        await self._model.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class OpenAI:
    """`openai.OpenAI`, answered by a model in this program: `AsyncOpenAI` for programs without an event loop.

    Calls run on an event loop of their own thread, so several threads may call at once and share the batch.
    """

    def __init__(self, client: ModelClient | None = None, **how: Any) -> None:
        asynchronous = AsyncOpenAI(client, **how)
        self._loop = _Loop(asynchronous.close)
        self.chat = _Chat(_Create(self._loop, asynchronous.chat.completions))
        self.completions = _Create(self._loop, asynchronous.completions)
        self.models = _Models(self._loop, asynchronous.models)

    def close(self) -> None:
        """End what runs, and close the engine if it was started here."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(Generic[T]):
    """Chunks as they come. Leaving it early, by `close` or by leaving its block, ends the run."""

    def __init__(self, pieces: AsyncGenerator[T, None], timeout: float | None) -> None:
        self._pieces, self._timeout = pieces, timeout

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        with raised_as_openai(), anyio.fail_after(self._timeout):
            return await anext(self._pieces)

    async def close(self) -> None:
        """End the run, if it has not ended."""
        await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Stream(Generic[T]):
    """`AsyncStream` without an event loop."""

    def __init__(self, loop: _Loop, stream: AsyncStream[T]) -> None:
        self._loop, self._stream = loop, stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self._loop.run(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the run, if it has not ended."""
        self._loop.run(self._stream.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Model:
    """The calls over the model, which is started when it is first needed."""

    def __init__(
        self, client: ModelClient | None, names: Sequence[str], approach: str, settings: Mapping[str, Any]
    ) -> None:
        self._client, self._names, self._approach, self._settings = client, names, approach, settings
        self._is_ours = client is None
        self._is_closed = False
        self._starting = anyio.Lock()

    async def calls(self) -> Completions:
        """Raises ClientError once it is closed, and what starting an engine raises."""
        async with self._starting:
            if self._is_closed:
                raise ClientError("the client is closed; make a new one")
            if self._client is None:
                self._client = await anyio.to_thread.run_sync(_started, self._settings)
        adapters = getattr(getattr(self._client, "settings", None), "lora_modules", ())
        return Completions(self._client, names=self._names, adapters=tuple(adapters), approach=self._approach)

    async def close(self) -> None:
        async with self._starting:
            self._is_closed = True
            if self._client and self._is_ours:
                await self._client.close()


class _Loop:
    """An event loop in a thread of its own, for as long as somebody may call.

    It ends when it is closed, when nobody has it any more, or with the program.
    """

    def __init__(self, at_last: Callable[[], Awaitable[None]]) -> None:
        opened = start_blocking_portal()
        self._portal = opened.__enter__()
        self.close = weakref.finalize(self, _shut, self._portal, opened, at_last)

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What the work gives; it ends when nobody waits any more."""
        future = self._portal.start_task_soon(work)
        try:
            return future.result()
        except BaseException:  # Ctrl-C reaches this thread alone
            future.cancel()
            raise


class _AsyncCreate(Generic[Whole, Piece]):
    """A resource with the method `create`."""

    def __init__(
        self,
        model: _Model,
        whole: Callable[[Completions, Mapping[str, Any]], Awaitable[Whole]],
        pieces: Callable[[Completions, Mapping[str, Any]], AsyncGenerator[Piece, None]],
        timeout: float | None,
    ) -> None:
        self._model, self._whole, self._pieces, self._timeout = model, whole, pieces, timeout

    async def create(
        self,
        *,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, Any] | None = None,
        extra_query: Mapping[str, Any] | None = None,
        timeout: Any = openai.NOT_GIVEN,  # noqa: ASYNC109 - OpenAI's own parameter
        **params: Any,
    ) -> Any:
        """The answer; with `stream=True` a stream of its pieces.

        Args:
            extra_body: further parameters, such as `optillm_approach` and the options of an optimizer.
            timeout: seconds, in the place of the client's.
            **params: of OpenAI's API.

        Raises:
            openai.BadRequestError: a parameter that is unknown, that there is not, or that has a value that cannot
                work; `param` is its name.
            openai.NotFoundError: no such model.
            openai.APITimeoutError: it took too long.
            openai.APIStatusError: there is no answer; see `openai.failures`.
        """
        with raised_as_openai():
            for name, given in (("extra_headers", extra_headers), ("extra_query", extra_query)):
                if given:
                    raise RequestRejected(name, dict(given), "nothing is sent over a network; use extra_body")
            seconds = _seconds(self._timeout if _is_omitted(timeout) else timeout)
            body = {name: value for name, value in params.items() if not _is_omitted(value)} | dict(
                extra_body or {}
            )
            calls = await self._model.calls()
            if body.get("stream"):
                return AsyncStream(self._pieces(calls, body), seconds)
            with anyio.fail_after(seconds):
                return await self._whole(calls, body)


class _Create(Generic[Whole, Piece]):
    """`_AsyncCreate` without an event loop."""

    def __init__(self, loop: _Loop, create: _AsyncCreate[Whole, Piece]) -> None:
        self._loop, self._create = loop, create

    def create(self, **params: Any) -> Any:
        """The answer; with `stream=True` a stream of its pieces."""
        found = self._loop.run(lambda: self._create.create(**params))
        return Stream(self._loop, found) if isinstance(found, AsyncStream) else found


class _AsyncChat:
    def __init__(self, completions: _AsyncCreate[ChatCompletion, ChatCompletionChunk]) -> None:
        self.completions = completions


class _Chat:
    def __init__(self, completions: _Create[ChatCompletion, ChatCompletionChunk]) -> None:
        self.completions = completions


class _AsyncModels:
    def __init__(self, model: _Model) -> None:
        self._model = model

    async def list(self) -> AsyncPage[Model]:
        """The model by each of its names, and its adapters."""
        with raised_as_openai():
            return AsyncPage(data=(await self._model.calls()).models(), object="list")


class _Models:
    def __init__(self, loop: _Loop, models: _AsyncModels) -> None:
        self._loop, self._models = loop, models

    def list(self) -> SyncPage[Model]:
        """The model by each of its names, and its adapters."""
        return SyncPage(data=self._loop.run(self._models.list).data, object="list")


def _started(settings: Mapping[str, Any]) -> ModelClient:
    from optillm_local.engine import VLLMClient

    return VLLMClient(**settings)


def _shut(
    portal: BlockingPortal,
    opened: AbstractContextManager[BlockingPortal],
    at_last: Callable[[], Awaitable[None]],
) -> None:
    portal.call(at_last)
    portal.call(portal.stop, True)
    opened.__exit__(None, None, None)


def _is_omitted(value: object) -> bool:
    return isinstance(value, openai.NotGiven | openai.Omit)


def _seconds(timeout: object) -> float | None:
    """Raises RequestRejected if it is no number of seconds."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise RequestRejected("timeout", timeout, "seconds, a number above 0; None waits as long as it takes")
    return float(timeout)
