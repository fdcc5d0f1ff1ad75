"""What text a study uses: corpora, tokenizer, held-out split and leak check, as they stand in the study file."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from indelible.strict import LARGEST, Count, Strict, added_later, unset_later

LossOn = Literal["all", "completion", "assistant"]
Packing = Literal["stream", "documents", "best_fit"]
TooLong = Literal["error", "drop", "cut"]
CHAT = "chat"  # the template that stands for the tokenizer's own chat template
OFFLINE_NAMES = ("general", "music", "chemistry", "instruction", "preferences")
Scalar = str | int | float | bool
ColumnFilter = dict[str, Scalar | tuple[Scalar, ...]]


def at_home(value: Any) -> Any:
    """A path that begins with ~ as the home folder says it; nothing else in a study file is a shell's."""
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        raise ValueError(f"{value}: the home folder of ~ is not known here; write the path out") from None


def _one_or_more(value: Any) -> Any:
    """A single path is a list of one; sweeping over paths is done with two corpora, not with a list."""
    paths = tuple(value) if isinstance(value, list | tuple) else (value,) if isinstance(value, str) else None
    if paths is None:
        return value
    if any(isinstance(path, str) and not path.strip() for path in paths):
        raise ValueError("an empty path; name a file or folder, . for the one that the command runs in")
    if away := [path for path in paths if isinstance(path, str) and re.match(r"[a-z][a-z0-9+]*://", path)]:
        raise ValueError(f"{away[0]!r} is an address, not a path; fetch the file first, or use kind: hub")
    return tuple(at_home(path) for path in paths)


class _Rows(Strict):
    """How the documents of a corpus become rows, and which tokens count. It changes no token of the corpus."""

    loss_on: LossOn | None = None  # which tokens are trained on and evaluated; null = data.loss_on
    packing: Packing = "stream"  # windows over all text; one document a row; whole documents, as many as fit into a row
    too_long: TooLong = "error"  # of a document longer than seq_len + 1 tokens, where documents stay whole
    max_tokens: Count | None = Field(default=None, gt=0)  # both splits together, tokens; null = everything

    @property
    def has_messages(self) -> bool:
        """True if documents are conversations, written by the tokenizer's chat template."""
        return False

    @model_validator(mode="after")
    def _whole_documents(self) -> "_Rows":
        if self.packing == "stream" and self.too_long != "error":
            raise ValueError(
                f"too_long: {self.too_long} is for packing: documents or best_fit; a stream cuts every document at the "
                "ends of its windows"
            )
        return self


class OfflineCorpus(_Rows):
    """Real text inside packages of the Python package index: no data hub is needed."""

    kind: Literal["offline"] = "offline"
    name: Literal["general", "music", "chemistry", "instruction", "preferences"]  # the last one: pairs of answers
    include_unclear: bool = False  # also take the sources whose licence is unclear
    sources: tuple[str, ...] | None = None  # only these (`indelible corpora list`); null = all with a clear licence


class _Columns(_Rows):
    """Which columns of a record are the text: one, a prompt and a completion (or two answers), or one of messages."""

    text_column: str | None = None  # default `text`, unless other columns are named
    prompt_column: str | None = None  # the question; goes with completion_column, or the two columns of a pair
    completion_column: str | None = None  # the answer
    # Lists of {role, content} or {from, value}, in the tokenizer's chat template
    messages_column: str | None = added_later(None)
    template: str = "{prompt}\n{completion}"  # everything before {completion} is prompt; {completion} stands last;
    # `chat` = a user's and an assistant's message in the tokenizer's chat template
    source_column: str | None = None  # its value is recorded as the document's source; null = file or data set name
    filter: ColumnFilter = Field(default_factory=dict)  # column: value or list of values; other records are skipped
    chosen_column: str | None = added_later(None)  # the better answer to the prompt: then the corpus is one of pairs
    rejected_column: str | None = added_later(None)  # the worse answer

    @model_validator(mode="after")
    def _text_or_pair(self) -> "_Columns":
        pair = (self.prompt_column, self.completion_column)
        if not self._names_answers() and (pair[0] is None) != (pair[1] is None):
            raise ValueError("prompt_column and completion_column go together: name both or neither")
        if pair[0] is not None and self.text_column is not None:
            raise ValueError("name either text_column or prompt_column and completion_column, not all three")
        others = (pair[0], self.text_column, self.chosen_column)
        if self.messages_column is not None and any(column is not None for column in others):
            raise ValueError("name either messages_column, or text_column, or prompt_column and completion_column")
        if self.template == CHAT:
            if pair[0] is None and self.chosen_column is None:
                raise ValueError("template: chat is for prompt_column and completion_column; messages have it anyway")
            return self
        if self.template.count("{prompt}") != 1 or not self.template.endswith("{completion}"):
            raise ValueError(f"template {self.template!r} must hold {{prompt}} once and end with {{completion}}")
        if self.template.count("{completion}") != 1:
            raise ValueError(f"template {self.template!r} holds {{completion}} more than once")
        return self

    def _names_answers(self) -> bool:
        """Whether these are the columns of pairs; refused if they are half of it."""
        named = (self.chosen_column, self.rejected_column)
        if named == (None, None):
            return False
        if None in named or (self.prompt_column is None and self.template != CHAT):
            raise ValueError(
                "prompt_column, chosen_column and rejected_column go together: name all three; answers that are whole "
                "conversations have no prompt_column, and template: chat"
            )
        if self.text_column is not None or self.completion_column is not None:
            raise ValueError("a corpus of pairs has neither text_column nor completion_column; name the other three")
        if len({*named, self.prompt_column}) < 3:  # without a prompt, None is the third
            raise ValueError("prompt_column, chosen_column and rejected_column must be three columns")
        return True

    @property
    def has_prompts(self) -> bool:
        """True if documents are made of a prompt and what follows it."""
        return self.prompt_column is not None

    @property
    def has_messages(self) -> bool:
        """True if documents are conversations, written by the tokenizer's chat template."""
        return self.messages_column is not None or self.template == CHAT

    @property
    def has_pairs(self) -> bool:
        """True if documents are pairs of a better and a worse answer."""
        return self.chosen_column is not None


class LocalCorpus(_Columns):
    """One's own files: JSONL (.gz, .zst), Parquet, plain text, or folders of them."""

    kind: Literal["local"] = "local"
    path: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_one_or_more)]  # files or folders
    format: Literal["auto", "jsonl", "parquet", "text"] = "auto"  # auto = by the file's ending
    document_bytes: Count | None = Field(default=8192, gt=0)  # text files are cut at paragraphs to this; null = whole
    odd_files: Literal["refuse", "skip"] = "refuse"  # what to do with empty and with duplicated files
    licence: str = "unstated"  # recorded


class HubCorpus(_Columns):
    """A data set of the Hugging Face hub, streamed with `datasets`; also a folder laid out like one."""

    kind: Literal["hub"] = "hub"
    id: Annotated[str, BeforeValidator(at_home)]  # owner/name, or the path of a folder (starts with . / or ~)
    config: str | None = None
    split: str = "train"  # of the data set; ours are made of it
    revision: str  # commit hash; a branch name is pinned to the commit that is first met
    shuffle: bool = True  # documents through a seeded buffer, shards in seeded order
    shuffle_buffer: Count = Field(default=10_000, gt=0)  # documents
    seed: int = Field(default=0, ge=0, le=LARGEST)  # of the shuffling
    licence: str = "unstated"  # recorded


class CatalogueCorpus(_Rows):
    """A data set of the hub with the columns and licence that `indelible corpora list` shows."""

    kind: Literal["catalogue"] = "catalogue"
    name: str  # of the catalogue
    config: str | None = None  # null = the catalogue's; the ChemPile sets want one
    revision: str = "main"  # commit hash; a branch name is pinned to the commit that is first met
    filter: ColumnFilter = Field(default_factory=dict)  # column: value or list of values


class SyntheticCorpus(_Rows):
    """Generated text whose structure is shared, to a chosen degree, with another generated corpus."""

    kind: Literal["synthetic"] = "synthetic"
    language: int = Field(ge=0, le=LARGEST)  # seed of the corpus's own structure
    shared_language: int | None = Field(default=None, ge=0, le=LARGEST)  # where a part of the structure is taken from
    overlap: float = Field(default=0.0, ge=0.0, le=1.0)  # share of the structure taken from it
    num_words: int = Field(default=512, ge=8, le=100_000)  # size of the vocabulary, the same words for all languages
    num_documents: Count = Field(default=2_000, gt=0, le=10**9)  # before the held-out split
    document_words: int = Field(default=200, ge=8, le=10**7)  # mean words a document
    seed: int = Field(default=0, ge=0, le=LARGEST)  # of the documents, not of the structure

    @model_validator(mode="after")
    def _overlap_needs_partner(self) -> "SyntheticCorpus":
        if self.overlap > 0 and self.shared_language is None:
            raise ValueError(f"overlap {self.overlap} needs shared_language: the language whose structure is shared")
        return self


CorpusSpec = Annotated[
    OfflineCorpus | LocalCorpus | HubCorpus | CatalogueCorpus | SyntheticCorpus, Field(discriminator="kind")
]


def text_recipe(spec: CorpusSpec, *more: str) -> dict[str, Any]:
    """The settings of a corpus that decide its documents, as JSON.

    Args:
        spec: of the corpus.
        more: further settings that do not.
    """
    return spec.model_dump(mode="json", exclude={*_Rows.model_fields, *more, *unset_later(spec)})


def has_pairs(spec: CorpusSpec) -> bool:
    """Whether a corpus is made of pairs of a better and a worse answer: for preference stages, not for windows."""
    if isinstance(spec, OfflineCorpus):
        return spec.name == "preferences"
    return isinstance(spec, LocalCorpus | HubCorpus) and spec.has_pairs


class BpeTokenizer(Strict):
    """A byte-level BPE trained on the training documents of the study's corpora."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: Count = Field(default=2048, ge=512, le=1_000_000)  # ids, the end-of-text token and 256 bytes included
    sample_bytes: Count = Field(default=8_000_000, gt=0)  # bytes of each corpus that the training sees


class HfTokenizer(Strict):
    """Any Hugging Face tokenizer."""

    kind: Literal["hf"] = "hf"
    path: Annotated[str, BeforeValidator(at_home)]  # name on the hub, or a folder
    revision: str | None = None


TokenizerSpec = Annotated[BpeTokenizer | HfTokenizer, Field(discriminator="kind")]


class SplitSpec(Strict):
    """The held-out split: whole documents, chosen by a hash of their content, so a text is on one side everywhere."""

    heldout_fraction: float = Field(default=0.05, gt=0.0, lt=1.0)  # of documents
    max_heldout_tokens: Count | None = Field(default=500_000, gt=0)  # tokens a corpus; what is beyond goes to training
    seed: int = Field(default=0, ge=-LARGEST, le=LARGEST)  # of the choice and of the order of documents


class LeakSpec(Strict):
    """The search for duplicates across splits and corpora."""

    near: bool = True  # near duplicates (MinHash) too, not only equal texts
    threshold: float = Field(default=0.8, gt=0.3, le=1.0)  # estimated Jaccard similarity of a near duplicate
    remove: bool = True  # take what is found out of the training side; false = only report


def check_names(corpora: Iterable[str]) -> None:
    """Names of corpora become names of folders. ValueError for one that is not plain."""
    for name in corpora:
        if not name.replace("_", "").isalnum() or not name.isascii():
            raise ValueError(f"corpus name {name!r}: use letters, digits and _ only (it becomes a folder's name)")


class DataSpec(Strict):
    """Everything that decides the tokens of a study."""

    corpora: dict[str, CorpusSpec]
    tokenizer: TokenizerSpec = BpeTokenizer()
    split: SplitSpec = SplitSpec()
    leaks: LeakSpec = LeakSpec()
    pre_corpora: tuple[str, ...] = ()  # corpora that lose their near duplicates of the other corpora's documents

    @model_validator(mode="after")
    def _known_names(self) -> "DataSpec":
        check_names(self.corpora)
        if unknown := [name for name in self.pre_corpora if name not in self.corpora]:
            raise ValueError(f"pre_corpora {unknown} are not among the corpora {sorted(self.corpora)}")
        return self


def default_corpora(names: list[str]) -> dict[str, CorpusSpec]:
    """The offline corpora for names that a study uses without declaring them; unknown names are left out."""
    return {name: OfflineCorpus(name=name) for name in names if name in OFFLINE_NAMES}
