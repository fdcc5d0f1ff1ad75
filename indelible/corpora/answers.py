"""Pairs of a better and a worse answer, as text and as messages: where the prompt ends, and what says nothing."""

from collections.abc import Sequence

from indelible.corpora.messages import Message
from indelible.errors import UserError

Messages = tuple[Message, ...]


def check_pair(chosen: str, rejected: str, columns: tuple[str, str], where: str) -> None:
    """Refuses a pair that says nothing of what is better.

    Raises:
        UserError: an answer is empty, or both are equal but for blank space at their ends.
    """
    for answer, column in zip((chosen, rejected), columns, strict=True):
        if not answer.strip():
            raise _no_answer(column, where)
    if chosen.strip() == rejected.strip():
        raise _same_answer(columns, where)


def _no_answer(column: str, where: str) -> UserError:
    return UserError(
        f"{where}: column {column!r} holds no answer; a pair needs a better and a worse one. Take the record out of "
        "the file, or leave it out by filter."
    )


def _same_answer(columns: tuple[str, str], where: str) -> UserError:
    return UserError(
        f"{where}: {columns[0]!r} and {columns[1]!r} are the same answer; a pair needs a better and a worse one. Take "
        "the record out of the file, or leave it out by filter."
    )


def chat_pair(
    prompt: Messages | None, chosen: Messages, rejected: Messages, columns: tuple[str, str], where: str
) -> tuple[Messages, Messages, Messages]:
    """Prompt, better and worse answer of a pair of messages.

    Args:
        prompt: messages in front of both answers; None = the answers are whole conversations, and the prompt is the
            beginning that they share.
        chosen: the better answer.
        rejected: the worse one.
        columns: of the answers, for messages.
        where: file and line, for messages.

    Raises:
        UserError: an answer is empty or does not begin with the assistant, both are equal, or nothing is in front of
            them.
    """
    if prompt is None:
        if _stripped(chosen) == _stripped(rejected):
            raise _same_answer(columns, where)
        shared = _shared(chosen, rejected)
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        if not prompt:
            raise UserError(
                f"{where}: {columns[0]!r} and {columns[1]!r} share no first message; a pair is two answers to one "
                "prompt. Name the prompt_column, or begin both conversations with it."
            )
    for answer, column in zip((chosen, rejected), columns, strict=True):
        if not any(message.role == "assistant" and message.content.strip() for message in answer):
            raise _no_answer(column, where)
        if answer[0].role != "assistant":
            raise UserError(
                f"{where}: behind the prompt, column {column!r} goes on with a message of role {answer[0].role}; an "
                "answer begins with the assistant's. Whole conversations, template: chat, have no prompt_column, and "
                "differ from a turn of the assistant on."
            )
    if _stripped(chosen) == _stripped(rejected):
        raise _same_answer(columns, where)
    return prompt, chosen, rejected


def _shared(chosen: Messages, rejected: Messages) -> int:
    """How many messages two conversations share at their start."""
    for number, (one, other) in enumerate(zip(chosen, rejected, strict=False)):
        if one != other:
            return number
    return min(len(chosen), len(rejected))


def _stripped(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content.strip()) for message in messages]
