"""Find the fields of JSON objects that name an answer, in text that is only partly JSON."""

import json
import re
from collections.abc import Iterator

_FIELD = re.compile(
    r'"(?P<key>final_?answer|answer|result)"\s*+:\s*+'
    # Of what holds other values only a list or a matrix: an answer that is an object is no answer.
    r'(?P<value>"(?:[^"\\]|\\.)*+"|-?+\d[\w.+-]*+|true\b|false\b|\[(?:[^\[\]{}]|\[[^\[\]{}]*+\])*+\])'
    r"\s*+(?=[,}])",  # a field that goes on or was cut off states nothing yet
    re.IGNORECASE | re.DOTALL,
)
# Models forget to double the backslash of \sqrt, and of \frac and \text, which are escapes of JSON by
# accident. An escaped quote, a code point and, where no command begins with it, a line break are meant.
_BARE_BACKSLASH = re.compile(
    r'(\\\\)|\\(?=[^"\\/nrtu]|u(?![0-9a-f]{4})|(?:neq?|nabla|rho|right|text|tfrac|theta|times)(?![a-z]))',
    re.IGNORECASE,
)


def fields(text: str, *keys: str) -> Iterator[tuple[str, int]]:
    """The values of the fields of these `keys`, each with its position in `text`.

    The keys known are ``final_answer``, ``answer`` and ``result``, in any case and with or without the
    underscore. Those of the first key come first, and of one key the last comes first. A string comes
    decoded, anything else as it is written.
    """
    found = list(_FIELD.finditer(text))
    for key in keys:
        for field in reversed(found):
            if _plain(field["key"]) == _plain(key) and (value := _decoded(field["value"])) is not None:
                yield value, field.start()


def _plain(key: str) -> str:
    return key.lower().replace("_", "")


def _decoded(value: str) -> str | None:
    if not value.startswith('"'):
        return value
    try:
        decoded: str = json.loads(_BARE_BACKSLASH.sub(lambda slash: slash[1] or r"\\", value), strict=False)
    except ValueError:
        return None
    return decoded
