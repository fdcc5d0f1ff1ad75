"""Seeds bought in blocks: which studies are run, what is recorded, and that the same call goes on."""

import shutil

import pytest
from fake_study import FakeStudy, write_fake_study

from indelible.claims.looks import read_looks
from indelible.errors import UserError
from indelible.study.load import resolve_study
from indelible.workflow.settling import planned_looks, settle

RAW = {
    "name": "fake",
    "scale": "pico",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "exposure": {"fraction": [0, 1]},
    "seeds": [0, 1],
}


class Runner:
    """Stands for running a study: writes what such a study would have left, and notes its seeds."""

    def __init__(self, out, **fake) -> None:
        self.out, self.fake, self.seeds = out, fake, []

    def __call__(self, study) -> None:
        self.seeds.append(list(study.seeds))
        kept = (self.out / "looks.json").read_bytes() if (self.out / "looks.json").exists() else None
        shutil.rmtree(self.out, ignore_errors=True)
        write_fake_study(self.out, FakeStudy(fractions=(0.0, 1.0), seeds=study.seeds, is_traced=False, **self.fake))
        if kept is not None:
            (self.out / "looks.json").write_bytes(kept)


def test_a_clear_effect_is_settled_at_the_first_look_and_nothing_more_is_bought(tmp_path):
    runner = Runner(tmp_path / "out", benefit=0.5, noise=0.001)
    looks = [
        one for found in settle(resolve_study(RAW), runner.out, "retained-lower", runner, looks=(3, 5)) for one in found
    ]
    assert runner.seeds == [[0, 1, 2]], "the study's own seeds first, then the next whole numbers"
    assert {one.decision for one in looks} == {"supported"}
    assert read_looks(runner.out) == looks
    assert list(settle(resolve_study(RAW), runner.out, "retained-lower", runner, looks=(3, 5))) == []
    assert len(runner.seeds) == 1, "settled: the same call buys nothing"


def test_what_is_open_buys_the_next_block_and_a_stopped_call_goes_on(tmp_path):
    runner = Runner(tmp_path / "out", benefit=0.02, noise=0.02, post_tokens=(10_000,))
    first = next(settle(resolve_study(RAW), runner.out, "retained-lower", runner, looks=(3, 5, 8)))
    assert [one.decision for one in first] == ["open"], "else this study is not the one for this test"
    rest = list(settle(resolve_study(RAW), runner.out, "retained-lower", runner, looks=(3, 5, 8)))
    assert runner.seeds[:2] == [[0, 1, 2], [0, 1, 2, 3, 4]]
    assert rest[0][0].number == 1


def test_requests_that_cannot_be_met(tmp_path):
    runner = Runner(tmp_path / "out")
    with pytest.raises(UserError, match=r"retaned-lower.*retained-lower"):
        list(settle(resolve_study(RAW), runner.out, "retaned-lower", runner, looks=(3, 5)))
    staged = resolve_study({**RAW, "seeds": {"pretrain": [0, 1]}})
    with pytest.raises(UserError, match="seeds by stage"):
        list(settle(staged, runner.out, "retained-lower", runner, looks=(3, 5)))
    with pytest.raises(UserError, match="rising"):
        planned_looks([5, 3], 24)
    with pytest.raises(UserError, match="--max-seeds 2"):
        planned_looks(None, 2)
    assert planned_looks(None, 24) == (3, 5, 8, 12, 16, 24)
    assert planned_looks(None, 10) == (3, 5, 8, 10)
    list(settle(resolve_study(RAW), runner.out, "retained-lower", Runner(runner.out, benefit=0.5), looks=(3, 5)))
    with pytest.raises(UserError, match="--looks 3,5"):
        list(settle(resolve_study(RAW), runner.out, "retained-lower", runner, looks=(4, 6)))
