"""The commands about pretrained models: models list, fetch, inspect."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.options import JsonOption
from indelible.cli.terminal import console
from indelible.files import read_json

if TYPE_CHECKING:
    from indelible.models.given import GivenCheckpoint
    from indelible.study.architecture import Architecture

_SEQ_LEN = 1024  # at which FLOPs are shown, unless the context is shorter


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    models = typer.Typer(help="Pretrained models: what there is, fetch it, look at it.", no_args_is_help=True)
    models.command("list")(list_models)
    models.command("fetch")(fetch_models)
    models.command("inspect")(inspect)
    app.add_typer(models, name="models")


def list_models(as_json: JsonOption = False) -> None:
    """Lists the models of the catalogue, which may stand in `init` and `tokenizer` by name."""
    from rich.table import Table

    from indelible.corpora.sources import default_cache_dir
    from indelible.models.catalogue import CATALOGUE
    from indelible.study.architecture import architecture_of

    cache = default_cache_dir()
    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "parameters": architecture_of(model.config).num_parameters,
            "source": model.source.text,
            "licence": model.licence,
            "is_fetched": model.is_fetched(cache),
            "note": model.note,
        }
        for model in CATALOGUE.values()
    ]
    if as_json:
        typer.echo(json.dumps({"cache": str(cache), "models": rows}, indent=1))
        return
    table = Table(title=f"Models (cache: {cache})")
    table.add_column("name", no_wrap=True)
    for heading in ("parameters", "source", "licence", "fetched"):
        table.add_column(heading)
    for row in rows:
        fetched = "yes" if row["is_fetched"] else "no"
        table.add_row(str(row["name"]), f"{row['parameters']:,}", str(row["source"]), str(row["licence"]), fetched)
    screen = console()
    screen.print(table)
    for row in rows:
        screen.print(f"{row['name']}: {row['note']}", highlight=False)


def fetch_models(names: Annotated[list[str], typer.Argument(help="Names of the catalogue.")]) -> None:
    """Fetches models of the catalogue into the cache and checks them against their pins."""
    from indelible.corpora.sources import default_cache_dir
    from indelible.models.catalogue import fetch_model, known_model

    cache = default_cache_dir()
    for model in [known_model(name) for name in names]:
        typer.echo(f"{model.name}: {fetch_model(model, cache)}\n{model.note}")


def inspect(
    target: Annotated[str, typer.Argument(help="Name of the catalogue, folder, or hub id (owner/name).")],
    revision: Annotated[str | None, typer.Option(help="Commit of the hub repository.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Shows what a model is: family, size, context, vocabulary, cost. Of a catalogue model nothing is fetched."""
    from indelible.models.given import find_checkpoint
    from indelible.study.architecture import architecture_of

    found = find_checkpoint(target, revision, "models inspect")
    facts = _facts(target, found, architecture_of(found.config))
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        typer.echo(f"{key.replace('_', ' '):24} {text}")


def _facts(target: str, found: "GivenCheckpoint", model: "Architecture") -> dict[str, Any]:
    text = found.config.get("text_config") or found.config
    context = text.get("max_position_embeddings") or text.get("n_positions")
    seq_len = min(_SEQ_LEN, context or _SEQ_LEN)
    facts: dict[str, Any] = {
        "model": target,
        "sha256": found.sha256,
        "family": text.get("model_type"),
        "parameters": model.num_parameters,
        "context": context,
        "vocabulary": model.vocab_size,
        "layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "heads": f"{model.num_heads} of {model.head_dim}, {model.num_kv_heads} for keys and values",
        "head": "the embedding" if model.is_tied else "of its own",
        f"training_FLOPs_a_token_at_{seq_len}": f"{3 * model.forward_flops(seq_len):.3e}",
        "counted": "exactly" if model.is_exact else "as an estimate: the family is not one that is counted exactly",
    }
    if found.catalogue is not None:
        facts |= {"source": found.catalogue.source.text, "licence": found.catalogue.licence}
        facts |= {"note": found.catalogue.note}
    if found.folder.is_dir():
        facts |= {"folder": str(found.folder), "chat_template": _has_chat_template(found.folder)}
    return facts


def _has_chat_template(folder: Path) -> bool:
    if any(folder.glob("chat_template*")):
        return True
    settings = folder / "tokenizer_config.json"
    found = read_json(settings) if settings.is_file() else {}
    return isinstance(found, dict) and "chat_template" in found
