"""Conversations as records hold them: a list of messages, each with a role and a text; two spellings, one form."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from indelible.errors import UserError

ROLES = ("system", "developer", "user", "assistant", "tool")
# role and content in the spelling of ShareGPT: `conversations` of `from` and `value`
_OTHER_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
# what a message may hold beside its text that a template would write too; we hand on text alone
_MORE_CONTENT = ("tool_calls", "function_call", "tool_call_id", "reasoning_content", "reasoning", "thinking", "images")


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str  # one of `ROLES`
    content: str


def read_messages(value: Any, where: str) -> tuple[Message, ...]:
    """A conversation out of a record: ``[{role, content}, ...]`` or ``[{from, value}, ...]``.

    Args:
        value: of the column.
        where: file and line, and the column, for messages.

    Raises:
        UserError: it is not a list of messages, a role is unknown, or a content is not text.
    """
    if not isinstance(value, list | tuple) or not value:
        found = "an empty list" if isinstance(value, list | tuple) else f"of type {type(value).__name__}"
        raise UserError(f"{where} is {found}; expected a list of messages, each {{role: ..., content: ...}}.")
    return tuple(_message(entry, f"{where}, message {number}") for number, entry in enumerate(value, 1))


def _message(entry: Any, where: str) -> Message:
    if not isinstance(entry, Mapping):
        raise UserError(f"{where} is of type {type(entry).__name__}; expected {{role: ..., content: ...}}.")
    names = ("role", "content") if "role" in entry else ("from", "value")
    for name in names:
        if name not in entry:
            keys = ", ".join(map(repr, entry)) or "nothing"
            raise UserError(f"{where} holds {keys}; expected 'role' and 'content' (or 'from' and 'value').")
    role, content = entry[names[0]], entry[names[1]]
    known = _OTHER_ROLES.get(role, role) if isinstance(role, str) else role
    if known not in ROLES:
        raise UserError(f"{where} has role {role!r}; the roles are {', '.join(ROLES)}.")
    if not isinstance(content, str):
        kind = "a list of parts" if isinstance(content, list) else f"of type {type(content).__name__}"
        raise UserError(f"{where} ({known}): its content is {kind}, not text; write it as one text.")
    if more := [name for name in _MORE_CONTENT if entry.get(name)]:
        raise UserError(
            f"{where} ({known}) also has {', '.join(more)}, which would not be trained on: only its content is read; "
            "write it into the content, or take it out."
        )
    return Message(known, content)


def plain_text(messages: Sequence[Message]) -> str:
    """A conversation as text: what is hashed, compared with other documents and counted in bytes."""
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)
