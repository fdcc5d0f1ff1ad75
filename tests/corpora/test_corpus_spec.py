"""Corpus settings as they stand in a study file."""

import pytest
from pydantic import ValidationError

from indelible.study.corpus_spec import DataSpec, HfTokenizer, HubCorpus, LocalCorpus, OfflineCorpus, default_corpora


def test_kinds_are_told_apart_and_counts_parsed() -> None:
    data = DataSpec.model_validate(
        {
            "corpora": {
                "web": {"kind": "hub", "id": "allenai/c4", "config": "en", "revision": "a" * 40, "max_tokens": "8.7B"},
                "mine": {"kind": "local", "path": "texts", "filter": {"src": ["a", "b"]}},
                "general": {"kind": "offline", "name": "general"},
            },
            "tokenizer": {"kind": "hf", "path": "HuggingFaceTB/SmolLM2-135M"},
            "pre_corpora": ["web"],
        }
    )
    assert isinstance(data.corpora["web"], HubCorpus)
    assert data.corpora["web"].max_tokens == 8_700_000_000
    assert isinstance(data.corpora["mine"], LocalCorpus)
    assert data.corpora["mine"].path == ("texts",)
    assert isinstance(data.tokenizer, HfTokenizer)
    assert DataSpec.model_validate_json(data.model_dump_json()) == data


def test_names_that_the_offline_corpora_answer_to() -> None:
    assert default_corpora(["music", "mine"]) == {"music": OfflineCorpus(name="music")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"corpora": {"a/b": {"kind": "offline", "name": "music"}}}, "use letters, digits and _ only"),
        ({"pre_corpora": ["web"]}, r"pre_corpora \['web'\] are not among the corpora"),
        ({"corpora": {"a": {"kind": "hub", "id": "x/y"}}}, "revision"),
        ({"corpora": {"a": {"kind": "paper"}}}, "kind"),
        ({"tokenizer": {"kind": "bpe", "vocab_size": 100}}, "greater than or equal to 512"),
        ({"split": {"heldout_fraction": 0}}, "greater than 0"),
    ],
)
def test_refusals(change: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DataSpec.model_validate({"corpora": {"m": {"kind": "offline", "name": "music"}}} | change)
