"""Chat templates: a conversation as the text that a tokenizer's own template makes of it, and which of it an assistant
said.

The template runs in jinja2's sandbox with the functions that transformers gives it, but for the clock: text that
depends on the day would be other text tomorrow. What the assistant said is known from the template's own
``{% generation %}`` marks, or found by rendering the conversation up to each of its turns.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from indelible.corpora.messages import Message
from indelible.data.time_limit import TooSlow, time_limit
from indelible.errors import UserError
from indelible.files import read_json
from indelible.study.yaml_reader import decode

Span = tuple[int, int]  # [start, end) in characters
MOST_SECONDS = 30.0  # for one conversation; the longest of a template in use takes a few ms
MOST_CHARACTERS = 50_000_000  # that a template writes; documents have at most 10 MB
LARGEST_POWER = 64


@dataclass(frozen=True)
class Rendered:
    """A conversation as text."""

    text: str
    spans: tuple[Span, ...]  # of each assistant turn, in order; empty where they are not known
    why_not: str = ""  # why they are not known


class _Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template; notes what its generation marks enclose."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """What makes a huge value of two small ones: a power, a text many times over, a width to be filled."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        is_repeat = operator == "*" and not numbers
        sizes = (one if isinstance(one, int) else len(one) for one in (left, right))
        if (operator == "**" and abs(right) > LARGEST_POWER) or (is_repeat and math.prod(sizes) > MOST_CHARACTERS):
            raise TemplateError(f"it computes something huge ({operator})")
        if operator == "%" and not numbers and re.search(r"%[-+ #0]*(\*|\d{5,})|\.\d{5,}", str(left)):
            raise TemplateError("it fills a text to a huge width (%)")
        return super().call_binop(context, operator, left, right)

    def __init__(self) -> None:
        # not optimised: else constants are computed, however large, before there is anything to limit
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, loopcontrols])
        del self.filters["random"], self.globals["lipsum"]  # text must not depend on chance
        self.filters["tojson"] = _tojson
        self.globals["raise_exception"] = _raise_exception
        self.blocks: list[str] = []  # rendered so far
        self.marked: list[tuple[int, str]] = []  # start and text of each marked stretch


class _Generation(Extension):
    """``{% generation %} ... {% endgeneration %}``: what stands between them is the assistant's."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own way

    def parse(self, parser: Parser) -> nodes.Node:
        """Wraps the block in a call of `_mark`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        text = str(caller())
        assert isinstance(self.environment, _Sandbox)
        self.environment.marked.append((sum(map(len, self.environment.blocks)), text))
        return text


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _raise_exception(message: str) -> str:
    raise TemplateError(message)


class ChatTemplate:
    """The chat template of one tokenizer folder."""

    def __init__(self, source: str, special_tokens: dict[str, str], marks: Iterable[str], name: str) -> None:
        """Compiles a template.

        Args:
            source: jinja2.
            special_tokens: what the template knows them as (``bos_token``) to their text.
            marks: the text of every special token of the tokenizer: one of them may end a turn.
            name: whose it is, for messages.

        Raises:
            UserError: it is not a template.
        """
        self._name, self._special, self._ends, self._sandbox = name, special_tokens, tuple(marks), _Sandbox()
        try:
            with time_limit(MOST_SECONDS):
                self._template = self._sandbox.from_string(source)
        except TooSlow:
            raise UserError(f"{name}: its chat template takes longer than {MOST_SECONDS:g} s to read.") from None
        except Exception as error:  # also of the parser itself: nested too deep, too long for Python
            raise UserError(f"{name}: its chat template cannot be read ({error}); repair it.") from None
        self.has_marks = "endgeneration" in source

    def text(self, messages: Sequence[Message], *, is_prompt: bool = False) -> str:
        """The text of a conversation; with ``is_prompt``, up to where the assistant would go on.

        Raises:
            UserError: the template refuses the conversation, or needs what it is not given.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        self._sandbox.blocks, self._sandbox.marked, size = [], [], 0
        values = {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": is_prompt}
        try:
            with time_limit(MOST_SECONDS):
                for block in self._template.generate(**values, **self._special):
                    size += len(block)
                    if size > MOST_CHARACTERS:
                        raise TemplateError(f"it writes more than {MOST_CHARACTERS:,} characters")
                    self._sandbox.blocks.append(block)
        except TooSlow:
            raise UserError(
                f"the chat template of {self._name} is not done with a conversation of {len(messages)} message(s) "
                f"after {MOST_SECONDS:g} s; mend it, or use another."
            ) from None
        except Exception as error:  # of whatever the template calls
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            if "strftime_now" in reason:
                reason = "it asks for today's date, and text must not depend on the day: write a date into it"
            if "'random'" in reason or "'lipsum'" in reason:
                reason = "it draws at random, and text must not depend on chance: write out what it shall say"
            roles = ", ".join(message.role for message in messages)
            raise UserError(f"the chat template of {self._name} refuses a conversation of {roles}: {reason}.") from None
        text = "".join(self._sandbox.blocks)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the chat template of {self._name} writes {text[error.start]!r}, half of a pair of surrogates, which "
                "is no character; write the character itself."
            ) from None
        return text

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The text of a conversation with the spans of its assistant turns: what would have to be generated.

        A span ends with the mark that ends the turn; blanks that follow such a mark are the template's.

        Raises:
            UserError: the template refuses the conversation, or leaves out what a message says.
        """
        text, marked = self.text(messages), self._sandbox.marked
        self._check_kept(messages, text)
        turns = [number for number, message in enumerate(messages) if message.role == "assistant"]
        if self.has_marks:
            spans = tuple((start, start + len(said)) for start, said in marked)
            is_sound = all(text.startswith(said, start) for start, said in marked)
            if len(spans) == len(turns) and is_sound:
                return Rendered(text, spans)
        try:
            found = [self._span_of_turn(messages, turn, text) for turn in turns]
        except UserError as error:
            return Rendered(text, (), str(error))
        return Rendered(text, tuple(found))

    def _span_of_turn(self, messages: Sequence[Message], turn: int, text: str) -> Span:
        """The span of a turn, from the texts that end where it begins and where it ends."""
        before, after = self.text(messages[:turn], is_prompt=True), self.text(messages[: turn + 1])
        if not (text.startswith(after) and after.startswith(before)):
            raise UserError(
                f"the chat template of {self._name} does not mark what the assistant says ({{% generation %}}), and "
                f"its text of message {turn + 1} depends on the messages behind it, so it cannot be told apart."
            )
        said = after.rstrip()
        return len(before), len(said) if said.endswith(self._ends) else len(after)

    def _check_kept(self, messages: Sequence[Message], text: str) -> None:
        for number, message in enumerate(messages, 1):
            said = message.content.rpartition("</think>")[2].strip()  # templates drop earlier reasoning on purpose
            if said not in text:
                raise UserError(
                    f"the chat template of {self._name} leaves out or rewrites the text of message {number} (role "
                    f"{message.role}), which begins {said[:40]!r}; take it out of the data, or use another template."
                )


def open_template(folder: Path, marks: Iterable[str] = ()) -> ChatTemplate | None:
    """The chat template of a tokenizer folder; None if it has none.

    Args:
        folder: with chat_template.jinja, or a ``chat_template`` in tokenizer_config.json.
        marks: the text of every special token of the tokenizer.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise UserError(f"{path}: found a {type(config).__name__}, expected an object of settings.")
    if (file := folder / "chat_template.jinja").is_file():
        source: Any = decode(file.read_bytes(), str(file))
    else:
        source = config.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = [one for one in source if isinstance(one, dict) and one.get("name") == "default"]
        source = named[0].get("template") if named else None
    if not isinstance(source, str) or not source.strip():
        return None
    special = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            special[name] = text
    return ChatTemplate(source, special, marks, folder.name)
