"""A number that cannot be, in a record that somebody edited, is refused where the record is read: file, place, rule."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.claims.looks import read_looks
from indelible.data.manifest_file import read_manifest
from indelible.data.tokenizer import read_made
from indelible.errors import UserError
from indelible.measure.speed import read_speeds
from indelible.records import Bundle, Evaluation, Failure, PackedRows, Plan, SentRun, StageResult, TaskExamples
from indelible.results.run_folder import read_ledger
from indelible.study.stage_spec import StageSpec

BAD = (-1, 10**45, 1e308)
SIDE = {"corpus": "a", "split": "train", "seq_len": 8, "loss_on": "all", "packing": "documents", "too_long": "cut",
        "documents": 3, "documents_too_long": 1, "longest_tokens": 20, "rows": 3, "tokens": 20, "trained_tokens": 18,
        "rows_without_trained": 0}  # fmt: skip
LOOK = {"claim": "c", "scope": "all", "number": 0, "num_seeds": 3, "planned": [3, 5], "level": 0.05,
        "nominal": 0.01, "effect": 0.1, "low": 0.0, "high": 0.2, "p_support": 0.2, "p_against": 0.9,
        "decision": "open", "detectable": 0.1}  # fmt: skip
SPEED = {"machine": "m", "scale": "pico", "device": "cpu", "threads": 1, "workers": 2, "tokens_per_second": 10.0,
         "flops_per_second": 1e9, "measured": "now"}  # fmt: skip
SHARD = {"tokens": 9, "bytes": 40, "files": [{"name": "a.npy", "bytes": 9, "sha256": ""}]}
MANIFEST = {"format": 1, "corpus": "a", "fingerprint": "0" * 64, "has_mask": False, "fates": {"train": {"tokens": 9}},
            "shards": {"train": [SHARD], "heldout": [SHARD]}, "chat": {"unmarked": 1, "why_not": "x"}}  # fmt: skip
TASK = {"format": 1, "task": "t", "content": "c", "kind": "multiple_choice", "separator": " ", "few_shot": 1,
        "length_normalised": False, "ignore_case": False, "max_new_tokens": 8,
        "shots": [{"prompt": "p", "choices": ["a", "b"], "answer": 1}],
        "examples": [{"prompt": "p", "choices": ["a", "b"], "answer": 1}]}  # fmt: skip
TASK_KIND = {"checkpoint": "", "task": "t", "content": "c" * 64, "own_name": None, "lm_eval": "0.4", "tokenizer": "k",
             "few_shot": 2, "limit": 8, "metric": None, "tokens": 64}  # fmt: skip
FAILURE = {"format": 1, "id": "a", "kind": "error", "type": "E", "message": "m", "attempt": 2, "failures": 1,
           "is_final": True}  # fmt: skip
BUNDLE = {"format": 1, "name": "s", "indelible": "0.2.0", "has_curves": True, "files": {"plan.json": "0" * 64},
          "environments": [{"runs": 3, "versions": {"torch": "2"}}]}  # fmt: skip
SENT = {"format": 1, "id": "a", "tracker": "wandb", "last_steps": {"train": 3}, "evaluations": ["m"]}
FREE = re.compile(
    r"format|(.*/)?(spec|columns|environment|summary)/.*|(.*/)?margin|key_of_a_later_release/.*|0/(effect|low|high)"
)  # what is not ours to bound: another reader's, a setting of any kind, a difference with a sign


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fake = FakeStudy(fractions=(0.0,), post_tokens=(10_000,), finetune_lrs=(1e-4,), seeds=(3,))
    return write_fake_study(tmp_path_factory.mktemp("records") / "study", fake)


def examples(study: Path) -> dict[str, tuple[Any, Callable[[Path], object], str]]:
    """Of each kind of record: its content, what reads it, and the name of its file."""

    def there(pattern: str) -> Any:
        return json.loads(next(iter(sorted(study.glob(pattern)))).read_text())

    plan = there("plan.json")
    watched = {"corpora": ["music"], "steps": [0, 2], "windows": 4}
    plan["stage_runs"][0] |= {"watch": watched}
    plan |= {"execution": {"workers": 1, "threads": 1, "micro_batch_size": 2, "resume_seconds": 3.0}}
    plan |= {"tasks": [TASK_KIND], "seeds": {"pretrain": [0, 1]}}
    result = there("runs/finetune-*/result.json")
    result |= {"sources": {"chemistry": {"rows": 1, "tokens": 8, "trained_tokens": 8}}, "watched": watched}
    result |= {"best_step": 3, "best_stop_loss": 3.5, "pairs_too_long": 0, "mfu": 0.1}
    evaluation = there("evaluations/finetune-*/music-*.json")
    evaluation |= {"accuracy": 0.5, "accuracy_se": 0.1, "margin_se": 0.1, "cut": 0}
    ledger = {"sources": ["a"], "bins": 2, "tokens": [[3, 4]]}
    return {
        "plan": (plan, Plan.read, "plan.json"),
        "result": (result, StageResult.read, "result.json"),
        "evaluation": (evaluation, Evaluation.read, "evaluation.json"),
        "failure": (FAILURE, Failure.read, "failure.json"),
        "packing": ({"format": 1, "sides": [SIDE]}, PackedRows.read, "packing.json"),
        "task": (TASK, TaskExamples.read, "task.json"),
        "bundle": (BUNDLE, Bundle.read, "bundle.json"),
        "sent": (SENT, SentRun.read, "sent.json"),
        "ledger": (ledger, lambda path: read_ledger(path.parents[2], "a"), "runs/a/ledger.json"),
        "looks": ([LOOK], lambda path: read_looks(path.parent), "looks.json"),
        "speeds": ({"format": 1, "speeds": [SPEED]}, lambda path: read_speeds(path.parent), "speeds.json"),
        "manifest": (MANIFEST, lambda path: read_manifest(path.parent), "manifest.json"),
        "tokenizer": ({"vocab_size": 8, "eos_id": 0, "tokenizer_sha256": ""}, lambda path: read_made(path.parent),
                      "indelible.json"),
    }  # fmt: skip


def numbers(value: Any, place: str = "") -> Iterator[str]:
    """The places of all numbers, as `a/b/c`."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(one, f"{place}/{key}".lstrip("/"))
    elif type(value) in (int, float):
        yield place


def put(value: Any, place: str, number: float) -> Any:
    """A copy with another number at a place."""
    copy = json.loads(json.dumps(value))
    holder, *keys = copy, *place.split("/")
    for key in keys[:-1]:
        holder = holder[int(key) if isinstance(holder, list) else key]
    holder[int(keys[-1]) if isinstance(holder, list) else keys[-1]] = number
    return copy


KINDS = ["plan", "result", "evaluation", "failure", "packing", "task", "bundle", "sent", "ledger", "looks", "speeds",
         "manifest", "tokenizer"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_cannot_be_is_refused(tmp_path: Path, study: Path, kind: str) -> None:
    content, read, name = examples(study)[kind]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    assert read(path)
    places = [place for place in numbers(content) if not FREE.fullmatch(place)]
    assert places
    believed = []
    for place, bad in itertools.product(places, BAD):
        path.write_text(json.dumps(put(content, place, bad)))
        if (said := refusal(read, path)) is None:
            believed.append(f"{place} = {bad:g}")
        else:
            assert name.rpartition("/")[2] in said
            assert re.search(r"[Dd]elete|Put it back|[Mm]ove", said), said
    assert not believed


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """What the reader says; None if it believes the file."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    return None


def test_every_record_is_among_them(study: Path) -> None:
    from indelible.records import Record

    tried = {read.__self__ for _, read, _ in examples(study).values() if hasattr(read, "__self__")}
    records = {one for one in Record.__subclasses__() if one.__module__.startswith("indelible.records")}
    assert records == tried


@pytest.mark.parametrize("field", ["seed", "permutation_seed", "seq_len", "code_version"])
def test_the_spec_of_a_stage_run_has_bounds(field: str) -> None:
    info = StageSpec.model_fields[field]
    assert any(hasattr(one, "ge") or hasattr(one, "gt") for one in info.metadata) or "ge=0" in repr(info.annotation)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("[]", "found a list"),
        ('{"format": 2}', "format 2"),
        ("{}", "format None"),
        (json.dumps({**MANIFEST, "fingerprint": None}), "fingerprint"),
        (json.dumps({**MANIFEST, "has_mask": "yes"}), "has_mask"),
        (json.dumps({**MANIFEST, "has_mask": True}), "no file for its mask"),
        (json.dumps({**MANIFEST, "shards": {"train": [SHARD]}}), "both sides"),
        (json.dumps({**MANIFEST, "shards": {"train": [{**SHARD, "files": []}], "heldout": []}}), "files"),
        (json.dumps(MANIFEST).replace("a.npy", "../../a.npy"), "name"),
        (json.dumps(MANIFEST).replace("a.npy", "/etc/passwd"), "name"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: str, place: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(place)):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content", ['{"format": 1}', '{"format": 1, "speeds": [{"x": 1}]}', '{"format": 1, "speeds": {}}']
)
def test_speeds_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "speeds.json").write_text(content)
    with pytest.raises(UserError, match=r"speeds\.json: speeds.*Delete it"):
        read_speeds(tmp_path)
