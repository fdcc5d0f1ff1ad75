"""The study files that the pages on data show are valid, and make the corpora that they say."""

from pathlib import Path

import pytest

from indelible.study.corpus_spec import LocalCorpus, SyntheticCorpus
from indelible.study.load import load_study

DOCS = Path(__file__).parents[2] / "docs"


def shown(page: str) -> list[str]:
    return [block.split("```")[0] for block in (DOCS / page).read_text().split("```yaml\n")[1:]]


def test_your_own_data_is_a_study_of_under_twenty_lines(tmp_path: Path) -> None:
    (text,) = shown("your-own-data.md")
    assert len(text.splitlines()) < 20
    (tmp_path / "study.yaml").write_text(text)
    data = load_study(str(tmp_path / "study.yaml")).data
    assert {name: spec.kind for name, spec in data.corpora.items()} == {
        "web": "local",
        "notes": "local",
        "tasks": "local",
    }
    web = data.corpora["web"]
    assert isinstance(web, LocalCorpus)
    assert web.path == ("data/web.jsonl",)


def test_the_chat_study(tmp_path: Path) -> None:
    (text,) = shown("chat-data.md")
    (tmp_path / "study.yaml").write_text(text)
    data = load_study(str(tmp_path / "study.yaml")).data
    rules = {name: (spec.loss_on, spec.packing, spec.too_long) for name, spec in data.corpora.items()}
    assert rules["chat"] == ("assistant", "best_fit", "drop")
    assert rules["tasks"] == ("completion", "documents", "cut")
    assert rules["web"] == (None, "stream", "error")


@pytest.mark.parametrize("text", [text for text in shown("corpora.md") if text.startswith("name:")])
def test_the_overlap_study(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    study = load_study(str(tmp_path / "study.yaml"))
    specs = [study.data.corpora[arm.roles["ft"]] for arm in study.arms]
    assert {spec.overlap for spec in specs if isinstance(spec, SyntheticCorpus)} == {0.0, 0.5, 1.0}
    assert study.arms == load_study("overlap").arms, "the page shows the shipped study"


def test_every_declared_corpus_of_the_page_is_valid(tmp_path: Path) -> None:
    text = next(text for text in shown("corpora.md") if text.startswith("corpora:")).replace("<commit>", "a" * 40)
    body = f"name: shown\nscale: pico\npipeline: {{pre: web, post: mine, ft: chat}}\nseeds: [0]\n{text}"
    (tmp_path / "study.yaml").write_text(body)
    assert set(load_study(str(tmp_path / "study.yaml")).data.corpora) == {"web", "mine", "chat"}
