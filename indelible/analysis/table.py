"""The results table: one row a chain, from plan.json and the runs' result.json."""

import io
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from indelible.analysis.columns import SCHEMA, STAGES
from indelible.analysis.runs import StudyRun, read_study_run
from indelible.errors import UserError
from indelible.files import written_aside

FORMATS = ("csv", "json", "parquet")
# loss name -> (stage whose weights are evaluated, role of the corpus they are evaluated on)
_SOURCES = {
    "L_im": ("posttrain", "post"),
    "L_ret": ("finetune", "post"),
    "L_ft": ("finetune", "ft"),
    "L_pre": ("finetune", "pre"),
    "L_pre_post": ("posttrain", "pre"),
}


def read_table(place: Path) -> pl.DataFrame:
    """The results table of a run folder, or one that `write_table` wrote as Parquet or CSV.

    From a folder: one row for each chain of its plan, whatever its status.

    Raises:
        UserError: the folder is not that of a study run, the file is not such a table, or one of its files is broken.
    """
    if place.is_file():
        return _stored_table(place)
    return results_table(read_study_run(place))


def _stored_table(path: Path) -> pl.DataFrame:
    """A table from its file; columns that the schema does not know keep the types that the file says or shows."""
    readers = {".parquet": pl.read_parquet, ".csv": partial(pl.read_csv, schema_overrides=SCHEMA)}
    rule = "expected a results table as `indelible results DIR --format csv|parquet` writes it"
    if path.suffix not in readers:
        raise UserError(f"{path}: neither the folder of a study run nor a .csv or .parquet file; {rule}.")
    try:
        table = readers[path.suffix](path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); {rule}.") from None
    if missing := [name for name in SCHEMA if name not in table.columns]:
        raise UserError(f"{path}: has no column {', '.join(missing)}; {rule}.")
    return table.with_columns(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def results_table(run: StudyRun) -> pl.DataFrame:
    """Builds the table of `indelible.analysis.columns` from what has been read of a study run.

    Settings of the plan that the schema does not know stand between ``posttrain_global_batch_size`` and ``L_im``;
    realised token counts (``<stage>_<corpus>_tokens``) stand last. Both are typed by their values.
    """
    chains = run.plan["chains"]
    rows = [_row(run, chain) for chain in chains]
    extra_settings = _extra(chains)
    counts = sorted({key for row in rows for key in row["tokens"]}, key=_stage_order)
    columns: dict[str, list[Any]] = {name: [row["values"].get(name) for row in rows] for name in SCHEMA}
    frame = pl.DataFrame(
        {name: pl.Series(name, _cast(values, name), SCHEMA[name], strict=False) for name, values in columns.items()}
    )
    position = frame.columns.index("L_im")
    for name in extra_settings:
        frame.insert_column(position, _typed_series(name, [chain["columns"].get(name) for chain in chains]))
        position += 1
    return frame.with_columns(pl.Series(name, [row["tokens"].get(name) for row in rows], pl.Int64) for name in counts)


def chain_status(run: StudyRun, ids: list[str]) -> str:
    """``diverged`` or ``failed`` when any of the runs is, ``done`` when all have results, else ``incomplete``."""
    found = [run.results.get(run_id) for run_id in ids]
    if any(result is not None and result.get("status") == "diverged" for result in found):
        return "diverged"
    if any(run_id in run.failures for run_id in ids):
        return "failed"
    return "done" if all(result is not None for result in found) else "incomplete"


def write_table(table: pl.DataFrame, path: Path, format_name: str) -> None:
    """Writes the table aside and renames it to ``path``."""
    with written_aside(path) as temporary:
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


def _row(run: StudyRun, chain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    settings = chain["columns"]
    values = {name: settings.get(name) for name in SCHEMA}
    roles = chain.get("roles") or _roles_of_pipeline(settings.get("pipeline"))
    ids = {stage: chain.get(f"{stage}_id") for stage in STAGES}
    results = {stage: run.results.get(run_id or "") or {} for stage, run_id in ids.items()}
    tokens: dict[str, int] = {}
    for stage in STAGES:
        result = results[stage]
        values[f"{stage}_id"] = ids[stage]
        values[f"{stage}_seconds"] = result.get("trained_seconds")
        values[f"{stage}_flops"] = result.get("flops")
        for corpus, count in (result.get("tokens_seen") or {}).items():
            tokens[f"{stage}_{corpus}_tokens"] = count
    for name, (stage, role) in _SOURCES.items():
        loss = (results[stage].get("losses") or {}).get(roles.get(role, "")) or {}
        values[name] = _finite(loss.get("nats_per_token"))
        values[f"{name}_bpb"] = _finite(loss.get("bits_per_byte"))
    values["posttrain_stop_reason"] = results["posttrain"].get("stop_reason")
    values["status"] = chain_status(run, [run_id for run_id in ids.values() if run_id])
    return {"values": values, "tokens": tokens}


def _finite(value: float | None) -> float | None:
    """JSON readers let NaN and infinity pass; in the table they are absent."""
    return value if value is not None and math.isfinite(value) else None


def _roles_of_pipeline(pipeline: str | None) -> dict[str, str]:
    parts = (pipeline or "").split(">")
    return dict(zip(("pre", "post", "ft"), parts, strict=True)) if len(parts) == 3 else {}


def _extra(chains: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for chain in chains for name in chain["columns"])
    return [name for name in names if name not in SCHEMA]


def _stage_order(name: str) -> tuple[int, str]:
    stage = name.split("_", 1)[0]
    return STAGES.index(stage), name


def _cast(values: list[Any], name: str) -> list[Any]:
    """Python values that polars can hold in the column's type; a value of another kind becomes text."""
    if SCHEMA[name] is pl.String:
        return [value if value is None or isinstance(value, str) else _text(value) for value in values]
    return values


def _typed_series(name: str, values: list[Any]) -> pl.Series:
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        return pl.Series(name, values, pl.Boolean)
    if all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        return pl.Series(name, values, pl.Int64)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return pl.Series(name, values, pl.Float64, strict=False)
    return pl.Series(name, [None if value is None else _text(value) for value in values], pl.String)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
