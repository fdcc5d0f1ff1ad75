"""Corpora that are only evaluated on: stores of their own, of which nothing that is trained on depends."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from indelible.data import evaluation_corpora as module
from indelible.data.fingerprint import fingerprints, study_stores
from indelible.data.prepare import prepare, prepare_study
from indelible.data.store import TokenStore
from indelible.errors import UserError
from indelible.study.corpus_spec import HfTokenizer
from indelible.study.graph import build_graph
from indelible.study.load import Study, resolve_study

SEQ = 32


def texts(kind: str, count: int) -> list[str]:
    return [" ".join(f"{kind}{(i * 7 + j * j) % 211}" for j in range(60)) for i in range(count)]


def write(path: Path, rows: list[str]) -> dict[str, str]:
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return {"kind": "local", "path": str(path)}


def study_of(root: Path, **more: Any) -> Study:
    corpora = {name: write(root / f"{name}.jsonl", texts(name, 200)) for name in ("pre", "post", "ft")}
    return resolve_study(
        {
            "name": "evaluated",
            "scale": "pico",
            "seq_len": SEQ,
            "tokenizer": {"kind": "bpe", "vocab_size": 600},
            "corpora": corpora | more.pop("corpora", {}),
            "pipeline": {"pre": "pre", "post": "post", "ft": "ft"},
            "data": {"split": {"heldout_fraction": 0.1}, **more.pop("data", {})},
            "pretrain": {"tokens": 640},
            "posttrain": {"tokens": 320},
            "finetune": {"tokens": 320},
            "seeds": [0],
            **more,
        }
    )


def files(tokens: Path) -> dict[str, bytes]:
    kept = (path for path in sorted(tokens.rglob("*")) if path.is_file() and path.name != ".prepare.lock")
    return {str(path.relative_to(tokens)): path.read_bytes() for path in kept}


def test_adding_one_changes_nothing_that_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, tokens = tmp_path / "cache", tmp_path / "tokens"
    plain = study_of(tmp_path)
    prepare_study(plain, tokens, cache)
    before = files(tokens)
    extra = {"probe": write(tmp_path / "probe.jsonl", texts("probe", 150))}
    more = study_of(tmp_path, corpora=extra, evaluation={"corpora": ["probe", "post"], "windows": 4})
    assert more.evaluation_corpora == ("probe",)
    assert fingerprints(more.data, cache) == fingerprints(plain.data, cache)
    names, old_names = study_stores(more, cache), study_stores(plain, cache)
    assert names.tokenizer == old_names.tokenizer
    assert {name: names.corpora[name] for name in old_names.corpora} == old_names.corpora
    assert list(names.corpora) == ["ft", "post", "pre", "probe"]
    assert build_graph(more, names).runs.keys() == build_graph(plain, old_names).runs.keys()

    prepare_study(more, tokens, cache)
    after = files(tokens)
    assert {name: after[name] for name in before} == before
    added = {Path(name).parts[0] for name in after if name not in before}
    assert added == {names.corpora["probe"]}
    assert not list(tokens.glob(".work-*"))

    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("worked again"))
    prepare_study(more, tokens, cache)


def test_its_store_holds_the_held_out_side_in_the_studys_tokens(tmp_path: Path) -> None:
    extra = {"probe": write(tmp_path / "probe.jsonl", texts("probe", 150)) | {"max_tokens": 60_000}}
    study = study_of(tmp_path, corpora=extra, evaluation={"corpora": ["probe"]})
    prepare_study(study, tmp_path / "tokens", tmp_path / "cache")
    names = study_stores(study, tmp_path / "cache")
    store = TokenStore.open(tmp_path / "tokens" / names.corpora["probe"], verify=True)
    assert store.manifest["tokenizer"] == names.tokenizer
    assert store.num_windows("train", SEQ) == 0
    assert store.num_windows("heldout", SEQ) > 2
    assert store.target_documents("heldout", np.arange(2), SEQ).shape == (2, SEQ)
    assert store.manifest["leaks"]["method"] == "content hash"
    assert not store.manifest["leaks"]["near"]
    # as it would be if it were trained on, with the same tokenizer
    tokenizer = HfTokenizer(path=str(tmp_path / "tokens" / names.tokenizer))
    trained = study.evaluation_data("probe").model_copy(update={"tokenizer": tokenizer})
    prepare(trained, tmp_path / "trained", tmp_path / "cache")
    folder = tmp_path / "trained" / fingerprints(trained, tmp_path / "cache").store_folder("probe")
    assert (np.load(folder / "heldout-00000.npy") == np.load(store.folder / "heldout-00000.npy")).all()


def test_its_name_moves_with_what_decides_its_tokens(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    probe = write(tmp_path / "probe.jsonl", texts("probe", 150))

    def name(**more: Any) -> str:
        corpora = {"probe": probe} | more.pop("corpora", {})
        study = study_of(tmp_path, corpora=corpora, evaluation={"corpora": ["probe"]}, **more)
        return study_stores(study, cache).corpora["probe"]

    base = name()
    assert base == name(finetune={"tokens": 320, "lr": 1e-4})
    assert base == name(corpora={"unread": {"kind": "synthetic", "language": 1}})
    others = [
        name(data={"split": {"heldout_fraction": 0.2}}),
        name(data={"leaks": {"near": False}}),
        name(tokenizer={"kind": "bpe", "vocab_size": 700}),
        name(corpora={"probe": probe | {"max_tokens": 9000}}),
        name(corpora={"ft": write(tmp_path / "other.jsonl", texts("other", 200))}),
    ]
    write(tmp_path / "probe.jsonl", texts("probe", 151))
    others.append(name())
    assert len({base, *others}) == len(others) + 1


@pytest.mark.parametrize("remove", [True, False])
def test_copies_of_what_is_trained_on_are_left_out_and_counted(tmp_path: Path, remove: bool) -> None:
    """With a cap on held-out tokens a text may be trained on in one corpus and held out in another."""
    data = {
        "split": {"heldout_fraction": 0.4, "max_heldout_tokens": 1500},
        "leaks": {"near": False, "remove": remove},
    }
    corpora = {"probe": write(tmp_path / "probe.jsonl", [*texts("probe", 20), *texts("post", 60)[::2]])}
    study = study_of(tmp_path, corpora=corpora, evaluation={"corpora": ["probe"]}, data=data)
    prepare_study(study, tmp_path / "tokens", tmp_path / "cache")
    names = study_stores(study, tmp_path / "cache").corpora

    def contents(corpus: str, side: str) -> set[str]:
        return set(pl.read_parquet(tmp_path / "tokens" / names[corpus] / f"{side}-00000.documents.parquet")["content"])

    probe = TokenStore.open(tmp_path / "tokens" / names["probe"], verify=True)
    counts, copies = probe.manifest["leaks"]["documents"], contents("post", "train")
    assert counts.keys() == {"exact leak of post train"}
    listed = [json.loads(line) for line in (probe.folder / "leaks.jsonl").read_text().splitlines()]
    found = {entry["document"] for entry in listed}
    assert len(listed) == len(found) == counts["exact leak of post train"] > 0
    assert found <= copies
    assert {(e["of_corpus"], e["of_split"], e["of_source"], e["source"]) for e in listed} == {
        ("post", "train", "post.jsonl", "probe.jsonl")
    }
    kept = contents("probe", "heldout")
    if remove:
        assert not kept & copies
        assert probe.manifest["fates"]["exact leak"]["documents"] == len(listed)
        assert "tokens as exact leak" in probe.left_out()
    else:
        assert kept & copies == found
        assert probe.manifest["fates"]["exact leak"]["documents"] == 0


def test_a_corpus_that_is_all_copies_is_refused(tmp_path: Path) -> None:
    data = {"split": {"heldout_fraction": 0.4, "max_heldout_tokens": 400}}
    corpora = {"probe": write(tmp_path / "probe.jsonl", texts("post", 200)[:40])}
    study = study_of(tmp_path, corpora=corpora, evaluation={"corpora": ["probe"]}, data=data)
    with pytest.raises(
        UserError,
        match=r"corpus probe: the leak check found every held-out document in other splits \(.* of post train\), so "
        r".* set data.leaks.remove: false to evaluate on copies",
    ):
        prepare_study(study, tmp_path / "tokens", tmp_path / "cache")
    assert not list((tmp_path / "tokens").glob("probe-*"))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpora = {"probe": write(tmp_path / "probe.jsonl", texts("probe", 50))}
    study = study_of(tmp_path, corpora=corpora, evaluation={"corpora": ["probe"]})
    prepare(study.data, tmp_path / "tokens", tmp_path / "cache")
    real = module.tokenise

    def and_change(*args: Any) -> Any:
        write(tmp_path / "probe.jsonl", texts("probe", 49))
        return real(*args)

    monkeypatch.setattr(module, "tokenise", and_change)
    with pytest.raises(UserError, match="the files of probe changed while they were read"):
        prepare_study(study, tmp_path / "tokens", tmp_path / "cache")
