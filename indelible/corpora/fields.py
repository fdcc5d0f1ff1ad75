"""Records to documents: which columns are the text, the filter on columns, and what is wrong with a record."""

from collections.abc import Iterator, Mapping
from typing import Any

from indelible.corpora.answers import chat_pair, check_pair
from indelible.corpora.document import Document
from indelible.corpora.messages import Message, plain_text, read_messages
from indelible.errors import UserError
from indelible.study.corpus_spec import HubCorpus, LocalCorpus

MAX_DOCUMENT_BYTES = 10_000_000  # one document; a longer one would take gigabytes to tokenise

_MARKED = {"template_marks": 1}  # in the recipe of a corpus whose template may write special tokens
_CHAT = {"chat": 1}  # and of one of conversations; raised when the same messages would give other tokens


def wanted_columns(spec: LocalCorpus | HubCorpus) -> list[str]:
    """The columns that a spec reads."""
    answers = [spec.completion_column, spec.chosen_column, spec.rejected_column]
    has_answers = spec.has_prompts or spec.has_pairs
    read = [spec.prompt_column, *answers] if has_answers else [spec.text_column or "text"]
    if spec.messages_column is not None:
        read = [spec.messages_column]
    return list(dict.fromkeys(c for c in (*read, spec.source_column, *spec.filter) if c is not None))


def missing_column(column: str, present: list[str], where: str) -> UserError:
    """The error for a column that is not there."""
    return UserError(
        f"{where}: no column {column!r}; it has {', '.join(map(repr, present)) or 'no columns'}. "
        "Set text_column, or prompt_column and completion_column (of pairs: chosen_column and rejected_column), or "
        "messages_column, to these."
    )


def _value(record: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in record:
        raise missing_column(column, list(record), where)
    return record[column]


def _text(record: Mapping[str, Any], column: str, where: str) -> str:
    value = _value(record, column, where)
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = "nested" if isinstance(value, list | dict) else f"of type {type(value).__name__}"
        raise UserError(
            f"{where}: column {column!r} is {kind}, not text; name a column that holds text, or write it flat first "
            "(of messages: messages_column, or template: chat)."
        )
    return value


def is_wanted(record: Mapping[str, Any], spec: LocalCorpus | HubCorpus, where: str) -> bool:
    """True if the record passes the filter."""
    for column, allowed in spec.filter.items():
        values = allowed if isinstance(allowed, tuple) else (allowed,)
        if _value(record, column, where) not in values:
            return False
    return True


def passing(found: Iterator[Document], spec: LocalCorpus | HubCorpus, where: str) -> Iterator[Document]:
    """The documents of a corpus, of which its filter must leave some.

    Raises:
        UserError: at the end, if there was none.
    """
    number = 0
    for number, document in enumerate(found, 1):  # noqa: B007 - whether there was one
        yield document
    if spec.filter and not number:
        asked = "; ".join(f"{column}: {value!r}" for column, value in spec.filter.items())
        raise UserError(
            f"{where}: no record with text passes the filter ({asked}); look at the values that the columns have and "
            "write them as they stand there ('1' is text, 1 a number)."
        )


def document_of(record: Mapping[str, Any], spec: LocalCorpus | HubCorpus, source: str, where: str) -> Document | None:
    """Makes a record a document; None if the filter refuses it or it holds no text.

    Raises:
        UserError: a column is missing or is not text, the document is too long, or a pair has no answer or two equal
            ones; ``where`` is named.
    """
    if not is_wanted(record, spec, where):
        return None
    if spec.source_column is not None:
        source = str(_value(record, spec.source_column, where))
        check_encodable(source, where)
    if spec.has_messages:
        return (_chat_pair if spec.has_pairs else _conversation)(record, spec, source, where)
    marks: tuple[tuple[int, int], ...] = ()
    rejected, answer_column = "", spec.chosen_column or spec.completion_column
    if spec.prompt_column is not None and answer_column is not None:
        completion = _text(record, answer_column, where)
        if spec.rejected_column is not None:
            rejected = _text(record, spec.rejected_column, where)
            check_pair(completion, rejected, (answer_column, spec.rejected_column), where)
        before, _, after = spec.template.removesuffix("{completion}").partition("{prompt}")
        head = before + _text(record, spec.prompt_column, where) + after
        text, prompt_chars = head + completion, len(head)
        if has_marks(spec):
            marks = ((0, len(before)), (len(head) - len(after), len(head)))
        is_blank = not completion.strip()
    else:
        text, prompt_chars = _text(record, spec.text_column or "text", where), 0
        is_blank = not text.strip()
    if is_blank:
        return None
    for part in (text, rejected):
        check_length(part, where)
        check_encodable(part, where)
    group = text[:prompt_chars] if rejected else ""  # answers to one prompt fall on one side of the held-out split
    return Document(text, prompt_chars, source, spec.licence, group, marks, rejected=rejected)


def _conversation(record: Mapping[str, Any], spec: LocalCorpus | HubCorpus, source: str, where: str) -> Document | None:
    """A record of messages; None if no assistant in it says anything."""
    if spec.messages_column is not None:
        column = spec.messages_column
        messages = read_messages(_value(record, column, where), f"{where}: column {column!r}")
    else:
        pair = ((spec.prompt_column, "user"), (spec.completion_column, "assistant"))
        messages = tuple(m for column, role in pair for m in _turns(record, column or "", role, where))
    if not any(message.role == "assistant" and message.content.strip() for message in messages):
        return None
    text = plain_text(messages)
    check_length(text, where)
    check_encodable(text, where)
    return Document(text, 0, source, spec.licence, messages=messages)


def _chat_pair(record: Mapping[str, Any], spec: LocalCorpus | HubCorpus, source: str, where: str) -> Document:
    """A record of two conversations that share their beginning, or of a prompt and two answers, as messages."""
    columns = spec.chosen_column or "", spec.rejected_column or ""
    answers = [_turns(record, column, "assistant", where) for column in columns]
    given = None if spec.prompt_column is None else _turns(record, spec.prompt_column, "user", where)
    prompt, better, worse = chat_pair(given, answers[0], answers[1], columns, where)
    text, rejected, group = plain_text((*prompt, *better)), plain_text(worse), plain_text(prompt)
    for part in (text, rejected):
        check_length(part, where)
        check_encodable(part, where)
    return Document(
        text, 0, source, spec.licence, group, messages=(*prompt, *better), rejected=rejected,
        worse=(*prompt, *worse), prompt_messages=len(prompt),
    )  # fmt: skip


def _turns(record: Mapping[str, Any], column: str, role: str, where: str) -> tuple[Message, ...]:
    """What a column says: a text in a role, or messages."""
    if isinstance(value := _value(record, column, where), list):
        return read_messages(value, f"{where}: column {column!r}")
    return (Message(role, _text(record, column, where)),)


def template_recipe(spec: LocalCorpus | HubCorpus) -> dict[str, Any]:
    """What the recipe of a corpus says of how its template is written."""
    return _CHAT if spec.has_messages else _MARKED if has_marks(spec) else {}


def has_marks(spec: LocalCorpus | HubCorpus) -> bool:
    """Whether the template writes more than blanks: then it may hold special tokens of the tokenizer."""
    return spec.has_prompts and bool(spec.template.replace("{prompt}", "").replace("{completion}", "").strip())


def check_length(text: str, where: str) -> None:
    """Refuses a document that is too long to be one.

    Raises:
        UserError: it has more than `MAX_DOCUMENT_BYTES`.
    """
    if len(text) * 4 > MAX_DOCUMENT_BYTES and (size := len(text.encode("utf-8", "surrogatepass"))) > MAX_DOCUMENT_BYTES:
        raise UserError(
            f"{where}: a document of {size:,} bytes; at most {MAX_DOCUMENT_BYTES:,} are taken. Cut it into documents "
            "(for text files: set document_bytes)."
        )


def check_encodable(text: str, where: str) -> None:
    """Refuses text that UTF-8 cannot express: JSON may escape one half of a surrogate pair alone.

    Raises:
        UserError: there is such a character; no tokenizer could read it.
    """
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start} of the text is {text[error.start]!r}, half of a surrogate pair, which "
            "is no text; replace it where the file was written (in Python: text.encode('utf-8', 'replace').decode())."
        ) from None
