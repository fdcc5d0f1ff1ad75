"""The study's tokenizer: trained or taken from Hugging Face, one folder either way."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from indelible.corpora import Document
from indelible.data.parts import Chunk, EncodeSettings, encode_chunk, read_records
from indelible.data.tokenizer import TokenizerInfo, bpe, copy_hf, load_fast, open_tokenizer, train_bpe
from indelible.errors import UserError
from indelible.study.corpus_spec import BpeTokenizer, HfTokenizer

TEXTS = [f"Some plain words, number {i} of many; caf\u00e9, \u6f22\u5b57 and \U0001f600." for i in range(50)]


def test_training_is_repeatable_and_transformers_reads_the_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_bpe(BpeTokenizer(vocab_size=600), TEXTS, tmp_path / name)
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()
    info = open_tokenizer(tmp_path / "a")
    assert (info.eos_id, info.dtype) == (0, np.uint16)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "a")
    ours = load_fast(info.path)
    assert len(loaded) == info.vocab_size <= 600
    assert loaded.eos_token_id == 0
    for text in (*TEXTS[:3], "bytes never seen: \x07\u0bf5"):
        assert loaded(text)["input_ids"] == ours.encode(text).ids
        assert ours.decode(ours.encode(text).ids) == text


def test_text_that_looks_like_a_special_token_stays_text(tmp_path: Path) -> None:
    train_bpe(BpeTokenizer(vocab_size=600), TEXTS, tmp_path / "a")
    ours = load_fast(open_tokenizer(tmp_path / "a").path)
    ids = ours.encode("an <|endoftext|> inside").ids
    assert 0 not in ids
    assert ours.decode(ids) == "an <|endoftext|> inside"


def test_a_hugging_face_tokenizer_is_copied(tmp_path: Path) -> None:
    made = PreTrainedTokenizerFast(tokenizer_object=bpe(BpeTokenizer(vocab_size=700), TEXTS), eos_token="<|endoftext|>")
    made.save_pretrained(tmp_path / "hf")
    copy_hf(HfTokenizer(path=str(tmp_path / "hf")), tmp_path / "copy")
    info = open_tokenizer(tmp_path / "copy")
    assert info.eos_id == 0
    assert load_fast(info.path).encode(TEXTS[0]).ids == made(TEXTS[0])["input_ids"]


def test_tokenizers_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer '.*nowhere' could not be loaded"):
        copy_hf(HfTokenizer(path=str(tmp_path / "nowhere")), tmp_path / "x")
    PreTrainedTokenizerFast(tokenizer_object=bpe(BpeTokenizer(vocab_size=600), TEXTS)).save_pretrained(
        tmp_path / "no-eos"
    )
    with pytest.raises(UserError, match=r"has no end-of-text token \(eos_token\)"):
        copy_hf(HfTokenizer(path=str(tmp_path / "no-eos")), tmp_path / "y")

    class Slow:
        is_fast = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: Slow())
        with pytest.raises(UserError, match=r"has no tokenizer.json"):
            copy_hf(HfTokenizer(path="slow"), tmp_path / "z")


def test_a_changed_tokenizer_is_refused(tmp_path: Path) -> None:
    train_bpe(BpeTokenizer(vocab_size=600), TEXTS, tmp_path / "a")
    with open(tmp_path / "a" / "tokenizer.json", "a") as handle:
        handle.write(" ")
    with pytest.raises(UserError, match=r"tokenizer.json changed since it was made"):
        open_tokenizer(tmp_path / "a")


def test_large_vocabularies_take_four_bytes() -> None:
    assert TokenizerInfo(Path(), 1 << 16, 0).dtype == np.uint16
    assert TokenizerInfo(Path(), (1 << 16) + 1, 0).dtype == np.uint32


def test_ids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    train_bpe(BpeTokenizer(vocab_size=600), TEXTS, tmp_path / "a")
    info = open_tokenizer(tmp_path / "a")
    lying = EncodeSettings(TokenizerInfo(info.path, 300, 0), 0, False)
    chunk = Chunk(tmp_path / "part-000000", [Document(TEXTS[0], 0, "s", "")], [0])
    with pytest.raises(UserError, match=r"gave id \d+, but its vocabulary ends at 299"):
        encode_chunk(chunk, lying)
    encode_chunk(chunk, EncodeSettings(info, 0, False))
    assert read_records(chunk.path)["tokens"][0] > 5
