"""The results table: one row a chain. Its losses are views on the long ones (`indelible.results.losses`)."""

import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from indelible.errors import UserError
from indelible.files import atomic_write
from indelible.records import PlannedChain
from indelible.results.chain_settings import extra_settings, settings_frame
from indelible.results.columns import (
    COLUMNS,
    FORGOTTEN,
    LOSSES,
    RESERVED,
    SCHEMA,
    column_order,
    column_type,
    derived_settings,
)
from indelible.results.losses import evaluation_rows
from indelible.results.pooling import refuse_pooling
from indelible.results.run_folder import StudyRun, read_study_run
from indelible.results.table_checks import checked_table
from indelible.study.paper_form import SHORT_STAGES

FORMATS = ("csv", "json", "parquet")
# Number of a loss in the long table, and what its column is called in the wide one.
_OF_A_LOSS = {"nats_per_token": "{}", "bits_per_byte": "{}_bpb", "standard_error": "{}_se"}


def refuse_input(target: Path, places: Sequence[Path]) -> None:
    """Refuses to write over a table that is read.

    Raises:
        UserError: it is one of the places.
    """
    if target.exists() and any(place.is_file() and target.samefile(place) for place in places):
        raise UserError(f"-o {target}: this is one of the tables that are read; name another file.")


def read_table(place: Path) -> pl.DataFrame:
    """The results table of a run folder, or one that `write_table` wrote as Parquet or CSV.

    From a folder: one row for each chain of its plan, whatever its status.

    Raises:
        UserError: the folder is not that of a study run, the file is not such a table, one of its files is broken,
            two of its chains cannot be told apart (`indelible.results.pooling`), or a row is no chain
            (`indelible.results.table_checks`).
    """
    if place.is_file():
        table = checked_table(_stored_table(place), place)
        refuse_pooling(table, str(place))
        return table
    return results_table(read_study_run(place))


def _stored_table(path: Path) -> pl.DataFrame:
    """A table from its file; columns that the schema does not know keep the types that the file says or shows."""
    overrides = {name: pl.String for name in SCHEMA if SCHEMA[name] is pl.String}  # the arm 7 is a name
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet,
        ".csv": partial(pl.read_csv, schema_overrides=overrides, infer_schema_length=None),
    }
    rule = "expected a results table as `indelible results DIR --format csv|parquet` writes it"
    if path.suffix not in readers:
        raise UserError(f"{path}: neither the folder of a study run nor a .csv or .parquet file; {rule}.")
    try:
        table = readers[path.suffix](path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); {rule}.") from None
    if missing := [column.name for column in COLUMNS if column.name not in table.columns and not column.is_new]:
        raise UserError(f"{path}: has no column {', '.join(missing)}; {rule}.")
    if not table.height:
        raise UserError(f"{path}: a table without a single chain; {rule}.")
    return _completed(table)


def _completed(table: pl.DataFrame) -> pl.DataFrame:
    """A table with the columns that came after it was written: null, but for what follows from the others."""
    absent = [column for column in COLUMNS if column.name not in table.columns]
    filled = table.with_columns(pl.lit(None, column.dtype).alias(column.name) for column in absent)
    if any(column.name == FORGOTTEN for column in absent):
        filled = filled.with_columns((pl.col("L_ret") - pl.col("L_im")).alias(FORGOTTEN))
    names = [column.name for column in absent]
    order = list(table.columns)
    for name in names:  # each behind the column that the schema has before it
        before = list(SCHEMA)[list(SCHEMA).index(name) - 1]
        order.insert(order.index(before) + 1, name)
    own = derived_settings(table)
    types = {name: dtype for name in order if name not in own and (dtype := column_type(name)) is not None}
    return filled.select(order).with_columns(pl.col(name).cast(dtype) for name, dtype in types.items())


def results_table(run: StudyRun) -> pl.DataFrame:
    """Builds the table of `indelible.results.columns` from what has been read of a study run.

    Settings of the plan that the schema does not know stand between ``posttrain_global_batch_size`` and ``L_im``, the
    study's own losses behind ``forgotten``, realised token counts (``<stage>_<corpus>_tokens``) last.

    Raises:
        UserError: two chains of the plan have equal settings and seeds, and are other runs.
    """
    chains, extra = run.plan.chains, extra_settings(run.plan.chains)
    tasks = {view for chain in chains for view, (_, corpus) in chain.views.items() if corpus in run.tasks}
    names = list(dict.fromkeys(name for chain in chains for name in chain.views if name not in {*LOSSES, *tasks}))
    losses, measured = _views(run, names), _measured_views(run)
    outcomes, tokens = _outcomes(run), _token_counts(run)
    stages = [stage for stage in run.stages if stage not in SHORT_STAGES]
    shown = [*names, *(f"{view}_{one}" for view, measures in measured.items() for one in measures)]
    order = [name for name in column_order(extra, shown, stages, tokens.columns) if not _is_absent(name, shown, losses)]
    _check_names(run, order)
    parts = [settings_frame(chains), losses, outcomes, tokens]
    table = pl.concat(parts, how="horizontal").select(order)
    refuse_pooling(table, str(run.root), run.specs)
    return table


def chain_status(run: StudyRun, chain: PlannedChain) -> str:
    """The state of a chain, by its stage runs and by the evaluations that its losses come from.

    Returns:
        ``diverged`` or ``failed`` when one of them is, ``done`` when all are there, else ``incomplete``.
    """
    results = [run.results.get(name) for name in chain.stages.values()]
    shown = dict.fromkeys(chain.views.values())
    planned = [run.planned_evaluations(chain, checkpoint).get(corpus) for checkpoint, corpus in shown]
    made = [run.evaluations.get(name) for name in planned if name is not None]
    parts = [*results, *made]
    if any(part is not None and part.status == "diverged" for part in parts):
        return "diverged"
    if any(name in run.failures for name in (*chain.stages.values(), *(checkpoint for checkpoint, _ in shown))):
        return "failed"
    return "done" if all(part is not None for part in parts) else "incomplete"


def write_table(table: pl.DataFrame, path: Path, format_name: str) -> None:
    """Writes the table atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(table_bytes(table, format_name))


def table_bytes(table: pl.DataFrame, format_name: str) -> bytes:
    """The table as CSV, JSON (a list of objects) or Parquet.

    Raises:
        UserError: another format was asked for.
    """
    if format_name == "csv":
        return table.write_csv().encode()
    if format_name == "json":
        return (json.dumps(table.to_dicts(), allow_nan=False, ensure_ascii=False, indent=1) + "\n").encode()
    if format_name == "parquet":
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        return buffer.getvalue()
    raise UserError(f"--format {format_name}: not a format of the table; choose one of {', '.join(FORMATS)}.")


def _check_names(run: StudyRun, names: list[str]) -> None:
    """A study names its losses as it likes, but not like a column that the table has already."""
    if twice := sorted({name for name in names if name in RESERVED or names.count(name) > 1}):
        raise UserError(
            f"{run.root / 'plan.json'}: views: the results table has a column {twice[0]} already; name the loss "
            f"otherwise in the study file, e.g. L_{twice[0]}."
        )


def _views(run: StudyRun, names: list[str]) -> pl.DataFrame:
    """The losses of each chain by name: nats per token, bits per byte, standard error; and ``forgotten``."""
    wanted = [
        (number, view, checkpoint, corpus)
        for number, chain in enumerate(run.plan.chains)
        for view, (checkpoint, corpus) in chain.views.items()
    ]
    schema = {"chain": pl.Int64, "view": pl.String, "checkpoint": pl.String, "corpus": pl.String}
    keys = ["chain", "checkpoint", "corpus"]
    columns = zip(schema.items(), zip(*wanted, strict=True) if wanted else ((),) * len(schema), strict=True)
    asked = pl.DataFrame({name: pl.Series(name, values, dtype) for (name, dtype), values in columns})
    found = asked.join(evaluation_rows(run), on=keys, how="left")
    table = pl.DataFrame({"chain": pl.Series(range(len(run.plan.chains)), dtype=pl.Int64)})
    measured = _measured_views(run)
    for view in dict.fromkeys((*LOSSES, *names, *measured)):
        own = found.filter(pl.col("view") == view)
        kept = _OF_A_LOSS.items() if view in (*LOSSES, *names) else ()  # of a task there is no loss
        numbers = [_finite(number).alias(name.format(view)) for number, name in kept]
        parts = [name for one in measured.get(view, ()) for name in (one, f"{one}_se")]
        numbers += [_finite(number).alias(f"{view}_{number}") for number in parts]
        table = table.join(own.select("chain", *numbers), on="chain", how="left", maintain_order="left")
    return table.drop("chain").with_columns((pl.col("L_ret") - pl.col("L_im")).alias(FORGOTTEN))


def _measured_views(run: StudyRun) -> dict[str, tuple[str, ...]]:
    """The named losses that are of pairs of answers or of a task in some chain: each is a few columns more."""
    views = (item for chain in run.plan.chains for item in chain.views.items())
    return {view: measures for view, (_, corpus) in views if (measures := run.measures_of(corpus))}


def _is_absent(name: str, shown: list[str], losses: pl.DataFrame) -> bool:
    """Bits per byte of a measure of pairs or of an accuracy: there are none."""
    return name.endswith("_bpb") and name.removesuffix("_bpb") in shown and name not in losses.columns


def _finite(number: str) -> pl.Expr:
    """JSON readers let NaN and infinity pass; in the table they are absent."""
    return pl.when(pl.col(number).is_finite()).then(pl.col(number))


def _outcomes(run: StudyRun) -> pl.DataFrame:
    """What became of the stage runs of each chain."""
    stages = list(dict.fromkeys((*SHORT_STAGES, *run.stages)))
    rows = []
    for chain in run.plan.chains:
        results = {stage: run.results.get(name) for stage, name in chain.stages.items()}
        row: dict[str, Any] = {"start": chain.start, "status": chain_status(run, chain)}
        for stage in stages:
            result = results.get(stage)
            row[f"{stage}_id"] = chain.stages.get(stage)
            row[f"{stage}_seconds"] = None if result is None else result.trained_seconds
            row[f"{stage}_flops"] = None if result is None else result.flops
        posttrain = results.get("posttrain")
        row["posttrain_stop_reason"] = None if posttrain is None else posttrain.stop_reason
        rows.append(row)
    names = ["start", "status", "posttrain_stop_reason"]
    names += [f"{stage}_{what}" for what in ("id", "seconds", "flops") for stage in stages]
    return pl.DataFrame(rows, {name: column_type(name) for name in names})


def _token_counts(run: StudyRun) -> pl.DataFrame:
    """Tokens seen by stage and corpus; by corpus and purpose where a stage uses a corpus twice."""
    counts = {
        (run.stages.index(result.stage), _word(source)): f"{result.stage}_{_word(source)}_tokens"
        for result in run.results.values()
        if result.stage in run.stages
        for source in result.tokens_seen
    }
    columns: dict[str, list[int | None]] = {counts[key]: [None] * len(run.plan.chains) for key in sorted(counts)}
    for number, chain in enumerate(run.plan.chains):
        for stage, name in chain.stages.items():
            for source, count in (run.results[name].tokens_seen if name in run.results else {}).items():
                columns[f"{stage}_{_word(source)}_tokens"][number] = count
    return pl.DataFrame({name: pl.Series(name, values, pl.Int64) for name, values in columns.items()})


def _word(source: str) -> str:
    """``music:exposure`` as a part of a column's name."""
    return source.replace(":", "_").replace(" ", "_")
