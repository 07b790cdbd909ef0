# SPDX-License-Identifier: MIT
"""What workflows write between `${{` and `}}`, as far as ours do: GitHub's documentation
"Evaluate expressions in workflows and actions"."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|([A-Za-z_][\w-]*)|(==|!=|&&|\|\||[!().,]))")
_HOLE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)


@dataclass
class Context:
    """What names mean: `values` by the name of the context (needs, matrix, ...)."""

    values: dict[str, Any]
    well: bool = True
    """Whether every step before this one succeeded."""


def filled(value: Any, context: Context) -> Any:
    """A value of a workflow's file with its expressions replaced; one that is nothing but an
    expression keeps its type."""
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(r"\s*\$\{\{(.*)\}\}\s*", value, re.DOTALL)
    if whole and "${{" not in whole[1]:
        return evaluated(whole[1], context)
    return _HOLE.sub(lambda hole: _text(evaluated(hole[1], context)), value)


def condition(text: str, context: Context) -> bool:
    """Whether an `if:` holds. Without always() it needs that all before it succeeded."""
    text = text.strip()
    if whole := re.fullmatch(r"\$\{\{(.*)\}\}", text, re.DOTALL):
        text = whole[1]
    holds = bool(evaluated(text, context))
    states = re.search(r"\b(always|failure|cancelled)\(", text) is not None
    return holds and (context.well or states)


def evaluated(text: str, context: Context) -> Any:
    """The value of an expression. Raises ValueError for what is none of ours."""
    reader = _Reader(text, context)
    value = reader.either()
    if reader.tokens:
        raise ValueError(f"{text!r}: {reader.tokens[0]!r} is not understood")
    return value


class _Reader:
    def __init__(self, text: str, context: Context) -> None:
        self.text, self.context = text, context
        self.tokens: list[str] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"{text!r}: {text[at:]!r} is not understood")
            self.tokens.append(found[1] or found[2] or found[3])
            at = found.end()

    def take(self, *wanted: str) -> str:
        if self.tokens and (not wanted or self.tokens[0] in wanted):
            return self.tokens.pop(0)
        return ""

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise ValueError(f"{self.text!r}: {wanted!r} is missing")

    def either(self) -> Any:
        value = self.both()
        while self.take("||"):
            other = self.both()
            value = value or other
        return value

    def both(self) -> Any:
        value = self.equal()
        while self.take("&&"):
            other = self.equal()
            value = value and other
        return value

    def equal(self) -> Any:
        value = self.one()
        while word := self.take("==", "!="):
            same = value == self.one()
            value = same if word == "==" else not same
        return value

    def one(self) -> Any:
        if self.take("!"):
            return not self.one()
        if self.take("("):
            value = self.either()
            self.need(")")
            return value
        token = self.take()
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if token in ("true", "false"):
            return token == "true"
        if not re.fullmatch(r"[A-Za-z_][\w-]*", token):
            raise ValueError(f"{self.text!r}: {token or 'its end'!r} is not understood")
        if self.take("("):
            value = self.call(token)
        elif token in self.context.values:
            value = self.context.values[token]
        else:
            raise ValueError(f"{self.text!r}: there is no context {token!r}")
        while self.take("."):
            # As GitHub has it, what is not there is empty.
            name = self.take()
            value = value.get(name, "") if isinstance(value, Mapping) else ""
        return value

    def call(self, name: str) -> Any:
        words: list[Any] = []
        while not self.take(")"):
            words.append(self.either())
            self.take(",")
            if not self.tokens:
                raise ValueError(f"{self.text!r}: ')' is missing")
        match name, words:
            case "always", []:
                return True
            case "success", []:
                return self.context.well
            case "failure", []:
                return not self.context.well
            case "fromJSON", [text]:
                return json.loads(text)
            case "toJSON", [value]:
                return json.dumps(value)
            case "format", [text, *rest]:
                return re.sub(r"\{(\d+)\}", lambda found: _text(rest[int(found[1])]), text)
        raise ValueError(f"{self.text!r}: {name}() is none of the functions that are known here")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)
