"""`ledger`, `studies`; and `plan_study` and `write_plan`, by which `plan` and `run` begin."""

import functools
import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from indelible.corpora.sources import default_cache_dir
from indelible.data.fingerprint import fingerprints
from indelible.data.ledger import check_fits
from indelible.errors import UserError
from indelible.files import read_json, write_json, write_text
from indelible.lab.failures import is_disk_error
from indelible.model.given import GivenCheckpoint, check_tokenizer, find_checkpoint
from indelible.study import cost, graph
from indelible.study.corpus_spec import BpeTokenizer
from indelible.study.load import Study, load_study, read_study_file, shipped_studies
from indelible.study.stages import StageInit

SMOLLM2_VOCABULARY = 49_152  # assumed by `plan` for a tokenizer that has not been fetched yet

StudyArgument = Annotated[str, typer.Argument(help="A study file, or the name of a shipped study.", metavar="STUDY")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a field, e.g. finetune.lr=1e-4.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]


@dataclass(frozen=True)
class Planned:
    """A study with its graph and what it costs."""

    study: Study
    stores: graph.Stores
    graph: graph.Graph
    costs: dict[str, cost.StageCost]
    summary: dict[str, Any]
    given: GivenCheckpoint | None  # the checkpoint that `init` names


def vocabulary_of(study: Study) -> int:
    """Size of the study's vocabulary, as far as it can be told without fetching the tokenizer."""
    tokenizer = study.data.tokenizer
    return tokenizer.vocab_size if isinstance(tokenizer, BpeTokenizer) else SMOLLM2_VOCABULARY


def plan_study(reference: str, overrides: list[str]) -> Planned:
    """Resolves a study into its graph, without fetching or tokenising anything."""
    with _without_collections():
        study = load_study(reference, overrides)
        names = fingerprints(study.data, default_cache_dir())
        stores = graph.Stores({c: names.store_folder(c) for c in names.stores}, names.tokenizer_folder)
        given = study.arms[0].init
        start = find_checkpoint(given.checkpoint, given.revision) if given else None
        built = graph.build_graph(study, stores, StageInit(sha256=start.sha256) if start else None)
        vocabulary = vocabulary_of(study)
        models = cost.models_by_run(built, cost.model_of_config(start.config) if start else study.arms[0].model)
        costs = cost.graph_costs(built, models, vocabulary)
        return Planned(study, stores, built, costs, cost.summary(built, costs, vocabulary), start)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Pauses Python's cyclic garbage collector, which looks at all of a large graph again and again as it grows."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _names_a_disk_that_refuses(write: Callable[[str, list[str], Path, dict[str, Any]], Path]) -> Callable[..., Path]:
    """Lets ``write`` end in one message, with the folder in it, where nothing can be written."""

    @functools.wraps(write)
    def told(reference: str, overrides: list[str], out: Path, execution: dict[str, Any]) -> Path:
        try:
            return write(reference, overrides, out, execution)
        except Exception as error:
            if not is_disk_error(error) and not isinstance(error, PermissionError):
                raise
            raise UserError(
                f"--out {out}: cannot be written ({error}); free some space or make it writable, and give the same "
                "command again: it continues."
            ) from error

    return told


@_names_a_disk_that_refuses
def write_plan(reference: str, overrides: list[str], out: Path, execution: dict[str, Any]) -> Path:
    """Resolves a study, prepares its tokens and writes study.yaml and plan.json.

    Args:
        reference: path or shipped name of a study.
        overrides: `--set` strings.
        out: folder of the study run; made if missing.
        execution: execution settings of the command line, over those of the study.

    Returns:
        The path of plan.json.

    Raises:
        UserError: the study is wrong, its text cannot be had, or a corpus is smaller than asked.
    """
    planned = plan_study(reference, overrides)
    _make_tokens(planned, out)
    settings = {**planned.study.execution.model_dump(mode="json"), **execution}
    if planned.given is not None:
        check_tokenizer(planned.given.folder, out / "tokens" / planned.stores.tokenizer, planned.given.vocab_size)
        settings["init_checkpoint"] = str(planned.given.folder)
    costs = {run: {"tokens": c.tokens, "flops": c.flops} for run, c in planned.costs.items()}
    plan = {
        "format": 1,
        "name": planned.study.name,
        "description": planned.study.description,
        "scale": planned.study.scale,
        "seeds": list(planned.study.seeds),
        "stores": dict(planned.stores.corpora),
        "tokenizer": planned.stores.tokenizer,
        "execution": settings,
        "summary": planned.summary,
        "stage_runs": graph.plan_runs(planned.graph, costs),
        "chains": graph.plan_chains(planned.graph),
    }
    path = out / "plan.json"
    if not path.exists() or read_json(path) != json.loads(json.dumps(plan)):
        write_text(out / "study.yaml", yaml.safe_dump(planned.study.raw, sort_keys=False, allow_unicode=True))
        write_json(path, plan)
    return path


def _make_tokens(planned: Planned, out: Path, quiet: bool = False) -> None:
    """Prepares the token stores of a study under ``out`` and checks that they hold what it asks for."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: the folder cannot be made ({error.strerror}); choose another place.") from None
    _prepare_tokens(planned.study, out, quiet)
    _check_corpora(planned, out)


def _prepare_tokens(study: Study, out: Path, quiet: bool) -> None:
    from indelible.data.prepare import prepare

    console = Console(quiet=quiet)  # a machine that reads standard output wants nothing but its JSON there
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: float) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=1.0)
                if not console.is_terminal:
                    console.print(what, highlight=False)
            bars.update(tasks[what], completed=done)

        prepare(study.data, out / "tokens", default_cache_dir(), show)


def _check_corpora(planned: Planned, out: Path) -> None:
    from indelible.data.store import TokenStore

    stores = {name: TokenStore.open(out / "tokens" / name) for name in planned.stores.corpora.values()}
    left_out = {name: store.left_out() for name, store in stores.items()}
    sizes: dict[int, dict[str, int]] = {}
    for run in planned.graph.runs.values():
        seq_len = run.spec.seq_len
        if seq_len not in sizes:
            sizes[seq_len] = {name: store.num_windows("train", seq_len) for name, store in stores.items()}
        check_fits(run.spec, sizes[seq_len], left_out)


def ledger(
    study: StudyArgument,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study run; default: one in the cache. Missing tokens are made.")
    ] = None,
    overrides: SetOption = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="Only chains with this number, arm name or column=value, e.g. seed=0; may be repeated."),
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="Folder for the raw ledgers; default: OUT/ledgers.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which tokens each stage sees: asked against realised, nesting, disjointness; write the raw ledgers."""
    from indelible.data.audit import audit_study

    planned = plan_study(study, overrides or [])
    out = out or default_cache_dir() / "ledger" / planned.study.name
    parquet = parquet or out / "ledgers"
    _make_tokens(planned, out, quiet=as_json)
    report = audit_study(planned.graph, out / "tokens", arm, parquet)
    if as_json:
        print(json.dumps({**report.as_json(), "parquet": str(parquet)}, indent=1))
    else:
        report.print(Console() if Console().is_terminal else Console(width=132))
        print(f"raw ledgers, one Parquet file a stage run: {parquet}")
    if not report.holds:
        raise typer.Exit(1)


studies_app = typer.Typer(help="The studies that come with indelible.", no_args_is_help=True)


@studies_app.command("list")
def studies_list(as_json: JsonOption = False) -> None:
    """List the shipped studies."""
    entries = [(name, read_study_file(name).get("description", "")) for name in shipped_studies()]
    if as_json:
        print(json.dumps([{"name": name, "description": description} for name, description in entries], indent=1))
        return
    for name, description in entries:
        print(f"{name:22} {description}")


@studies_app.command("show")
def studies_show(name: Annotated[str, typer.Argument(help="Name of a shipped study.")]) -> None:
    """Print the YAML of a shipped study."""
    found = shipped_studies()
    if name not in found:
        raise UserError(f"{name!r} is not a shipped study; they are {', '.join(found)}.")
    print(found[name].read_text(encoding="utf-8"), end="")


def register(app: typer.Typer) -> None:
    """Adds these commands to the application."""
    app.command()(ledger)
    app.add_typer(studies_app, name="studies")
