"""Accuracies on the card: a row for each task, checkpoint and new corpus, with what each interval is over."""

import json

import jsonschema
import numpy as np
import pytest
from fake_audit import FakeAudit, write_fake_audit
from scipy import stats
from task_files import CHOICE, any_lm_eval, write_task

from indelible.durability.battery import read_battery
from indelible.durability.card import schema
from indelible.durability.card_html import card_html
from indelible.durability.card_text import card_markdown
from indelible.durability.findings import make_audit
from indelible.durability.request import make_request
from indelible.durability.study import portions, study_of
from indelible.errors import UserError
from indelible.records import Evaluation, Plan, evaluation_path
from indelible.study.identity import task_evaluation_id
from indelible.study.load import resolve_study
from indelible.study.stage_spec import TaskEvaluation

__all__ = ["any_lm_eval"]
EXAMPLES = 80


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A finished audit with a task; accuracies come from a table that is returned too, by checkpoint id."""
    root = tmp_path_factory.mktemp("audit")
    asked = write_fake_audit(root, FakeAudit({"a": 0.2, "b": 0.4}, against=("b",)))
    plan = Plan.read(root / "plan.json")
    assert plan is not None
    task = TaskEvaluation(
        checkpoint="", task="refusals", content="0" * 64, own_name=None, lm_eval="0.4.13", tokenizer="tokenizer-0",
        few_shot=0, limit=None, metric="acc",
    )  # fmt: skip
    wanted, source, table = {}, np.random.default_rng(0), {}
    for checkpoint in plan.evaluations:
        name = task_evaluation_id(task, checkpoint)
        wanted[checkpoint] = {name: 0}
        share = table[checkpoint] = round(float(source.uniform(0.3, 0.7)), 3)
        Evaluation(
            id=name, checkpoint=checkpoint, corpus="refusals", status="done", nats_per_token=None, bits_per_byte=None,
            standard_error=None, tokens=0, documents=EXAMPLES, windows=0, accuracy=share,
            accuracy_se=(share * (1 - share) / (EXAMPLES - 1)) ** 0.5, metric="acc", cut=0,
        ).write(evaluation_path(root, checkpoint, name))  # fmt: skip
    plan.model_copy(update={"tasks": (task,), "task_evaluations": wanted}).write(root / "plan.json")
    return root, asked, plan, table


def test_a_row_for_each_checkpoint_and_trial_set(audited):
    root, asked, plan, table = audited
    found = make_audit(root, asked)
    request = asked.request
    assert [(row.task, row.checkpoint, row.later) for row in found.accuracies] == [
        ("refusals", checkpoint, later) for checkpoint in request.checkpoints for later in request.later
    ]
    plain = {one.name: one for one in asked.portion.settings if one.is_plain}
    for row in found.accuracies:
        start = asked.ids[row.checkpoint]
        share, error = table[start], (table[start] * (1 - table[start]) / (EXAMPLES - 1)) ** 0.5
        assert row.before.value == share
        assert row.before.low == pytest.approx(share - stats.t.ppf(0.975, EXAMPLES - 1) * error)
        assert (row.before.n, row.examples) == (EXAMPLES, EXAMPLES)
        by_seed: dict[int, list[float]] = {}
        for chain in plan.chains:
            arm = chain.columns["arm"]
            if arm in plain and plain[arm].corpus == row.later and chain.start == start:
                by_seed.setdefault(chain.columns["seed"], []).append(table[chain.stages["finetune"]])
        means = [np.mean(shares) for shares in by_seed.values()]
        assert row.settings == len(next(iter(by_seed.values()))) > 1
        assert row.after.value == pytest.approx(np.mean(means))
        assert row.after.n == len(means)
        over_seeds = stats.t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / len(means) ** 0.5
        assert row.after.high - row.after.value > over_seeds, "the error of the examples is in it"


def test_the_card_shows_them(audited):
    root, asked, _, _ = audited
    found = make_audit(root, asked)
    row = found.accuracies[0]
    shown = f"{100 * row.before.value:.0f} % ({100 * row.before.low:.0f} to {100 * row.before.high:.0f}"
    assert shown in card_markdown(found).replace("\\", "")
    assert "<h2>Accuracies</h2>" in card_html(found)
    assert shown in card_html(found)
    jsonschema.validate(json.loads(found.model_dump_json()), schema())
    without = found.model_copy(update={"accuracies": ()})
    assert "Accuracies" not in card_markdown(without) + card_html(without)


def test_tasks_are_part_of_the_study_and_of_no_stage_run(tmp_path, any_lm_eval):
    file = write_task(tmp_path / "my refusals.yaml", CHOICE)

    def request(*tasks):
        return make_request(
            ["m"], "instruction", ["chemistry"], read_battery(None, {}), tasks=[str(one) for one in tasks]
        )

    asked = request(file)
    assert asked.tasks == {"my_refusals": str(file)}
    first = portions(asked)[0]
    with_task, plain = (study_of(one, first, {}, "pico") for one in (asked, request()))
    assert resolve_study(with_task).arms[0].evaluation.tasks["my_refusals"].file == str(file)
    with_task["evaluation"].pop("tasks")
    assert with_task == plain
    with pytest.raises(UserError, match="'my_refusals' is named twice"):
        request(file, tmp_path / "other" / "my refusals.yml")
