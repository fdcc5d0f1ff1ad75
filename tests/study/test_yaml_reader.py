"""A study file says what its writer means, or is refused with the line and the fix."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indelible.errors import UserError
from indelible.strict import parse_count
from indelible.study.checks import empty_sections_left_out
from indelible.study.grid import apply_overrides
from indelible.study.load import load_study, resolve_study
from indelible.study.yaml_reader import read_mapping, read_value, split_path, write_yaml

STUDY = {
    "name": "t",
    "scale": "pico",
    "pipeline": {"pre": "general", "post": "music", "ft": "chemistry"},
    "seeds": [0],
}


TEXTS = [
    "no",
    "No",
    "on",
    "off",
    "yes",
    "y",
    "N",
    "2024-01-01",
    "017",
    "0o17",
    "1:30",
    "12:30:45",
    "=",
    "nan",
    "inf",
    "1e",
    "1.2.3",
    "12e4567",
    "0b1",
    "tRUE",
    "_1",
]
VALUES = {
    "true": True,
    "False": False,
    "~": None,
    "": None,
    "null": None,
    "0": 0,
    "-12": -12,
    "1_000": 1000,
    "0x1F": 31,
    "1e-4": 1e-4,
    "4.0e-3": 4e-3,
    ".5": 0.5,
    "1.": 1.0,
    ".inf": math.inf,
    "1e3": 1000.0,
    "-2.5E+3": -2500.0,
    "'1e-4'": "1e-4",
    '"no"': "no",
    "!!str 5": "5",
    "!!int 5": 5,
    "[1, a, {b: 2}]": [1, "a", {"b": 2}],
    "{<<: {a: 1, b: 1}, b: 2}": {"a": 1, "b": 2},
    "[&x {a: 1}, *x]": [{"a": 1}, {"a": 1}],
    "{1: a}": {"1": "a"},
}


@pytest.mark.parametrize("text", [*TEXTS, "2024-01-01 10:00:00"])
def test_what_other_readers_turn_into_something_else_stays_text(text):
    assert read_value(text, "here") == text
    assert read_value(f"a: {text}", "here") == {"a": text}


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_values_are_read(text, value):
    found = read_value(text, "here")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", r"line 4: the key 'c' stands twice, first in line 3"),
        ("{a: 1, a: 1}", "stands twice"),
        ("&a [*a]", "an alias .* stands inside what it stands for"),
        ("[" * 2000, "nested hundreds deep"),
        ("9" * 5000, "a number of 5,000 digits"),
        ("!!python/object/apply:os.system [ls]", "the tag !!python/object/apply:os.system is not read"),
        ("!secret x", "the tag !secret is not read"),
        ("{[1]: 2}", "a list or mapping stands where a name is expected"),
        ("<<: 3", "takes a mapping or a list of mappings"),
        ("[1", "this is not YAML"),
        ("a\udce9", "bytes that are not UTF-8"),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(7)
        ), "more than 1,000,000 values"),
    ],
)  # fmt: skip
def test_what_could_be_misread_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        read_value(text, "here")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a: 1".encode("utf-16"), "is UTF-16 .*save it as UTF-8"),
        ("a: 1".encode("utf-32"), "is UTF-32 .*save it as UTF-8"),
        ("a: 1".encode("utf-16-le"), "zero bytes"),
        ("a: 1\nname: caf\xe9".encode("latin-1"), r"s.yaml line 2: not UTF-8 \(byte 0xe9"),
        (b"a: 1\n\xef\xbb\xbfb: 1", "line 2: a byte order mark inside the text"),
        (b"", "expected a mapping of settings at the top, found nothing"),
        (b"- a", "found list"),
    ],
)
def test_bytes_that_are_no_study_file_are_one_message(data, message):
    with pytest.raises(UserError, match=message):
        read_mapping(data, "s.yaml")


def test_a_byte_order_mark_at_the_start_is_no_text():
    assert read_mapping(b"\xef\xbb\xbfname: a", "s.yaml") == {"name": "a"}


def test_a_study_file_that_cannot_be_opened_is_one_message(tmp_path):
    for reference in ("a" * 5000 + ".yaml", "a\0b.yaml", str(tmp_path), "caf\udce9.yaml"):
        with pytest.raises(UserError, match=r"cannot be read|no such study file|neither a study file"):
            load_study(reference)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("finetune.tokens=.inf", r"finetune.tokens = inf"),
        ("finetune.tokens=.nan", r"finetune.tokens = nan"),
        ("finetune.tokens=1e308", r"finetune.tokens: larger than 9,223,372,036,854,775,807"),
        ("finetune.tokens=9e300B", r"finetune.tokens = '9e300B'"),
        ("finetune.tokens=infx", r"finetune.tokens = 'infx'"),
        ("finetune.tokens=nanx", r"finetune.tokens = 'nanx'"),
        ("finetune.tokens=1e308x", r"is more than any setting takes"),
        ("finetune.tokens=true", r"finetune: tokens = true: expected a number"),
        ("finetune.lr=yes", r"finetune.lr = 'yes'"),
        ("finetune.lr=true", r"finetune: lr = true: expected a number"),
        ("finetune.lr=.inf", r"finetune.lr = inf"),
        ("name=5", r"name = 5: .*put it in quotes"),
        ("seeds=[9223372036854775808]", r"below 2\^63"),
        ("seeds=[true]", r"seeds = \[True\]"),
        ("data.split.seed=9223372036854775808", r"data.split.seed"),
        ("finetune..lr=1", r"a part of the path is empty"),
    ],
)
def test_numbers_that_are_none_are_refused_with_their_place(change, message):
    with pytest.raises(UserError, match=message):
        resolve_study(apply_overrides(STUDY, [change]))


@pytest.mark.parametrize(
    ("change", "value"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("0.5x", None)],
)
def test_rates_in_every_spelling(change, value):
    study = resolve_study(apply_overrides(STUDY, [f"finetune.lr={change}"]))
    assert value is None or study.arms[0].stages["finetune"].lr == value


@pytest.mark.parametrize("value", ["no", "off", "false", "No"])
def test_words_still_switch_what_can_be_switched(value):
    assert resolve_study(apply_overrides(STUDY, [f"data.leaks.near={value}"])).data.leaks.near is False


@pytest.mark.parametrize("value", ["off", "false", "'off'"])
def test_the_compiler_is_switched_off(value):
    assert resolve_study(apply_overrides(STUDY, [f"execution.compile={value}"])).execution.compile == "off"


@pytest.mark.parametrize(("text", "count"), [("10k", 10_000), ("8.7B", 8_700_000_000), (2e3, 2000), ("1_000", 1000)])
def test_counts(text, count):
    assert parse_count(text) == count
    assert isinstance(parse_count(text), int)


def test_a_section_in_which_no_line_is_left_sets_nothing():
    sections = {"data": None, "exposure": None, "execution": None, "arms": None, "corpora": None, "init": None}
    plain = resolve_study(STUDY)
    empty = resolve_study({**STUDY, **sections, "finetune": None, "posttrain": {"lora": None}})
    assert empty.arms == plain.arms
    assert empty.execution == plain.execution
    arms = resolve_study({**STUDY, "arms": {"a": None, "b": {"exposure": None, "finetune": {"lr": 1e-5}}}}).arms
    assert [arm.arm for arm in arms] == ["a", "b"]
    assert empty_sections_left_out({"finetune": {"max_tokens": None}}) == {"finetune": {"max_tokens": None}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("finetune.lr=[3e-4, 0.0003]", r"finetune.lr = .*0.0003 and 0.0003 are the same value"),
        ("finetune.lr=['1e-4', 1e-4]", "are the same value"),
        ("exposure.fraction=[0, 0.0, 1]", r"0 and 0.0 are the same value"),
        ("finetune.tokens=[1k, 1000]", "'1k' and 1000 are the same value"),
        ("finetune.lr=[1x, 2e-3, 1.0x]", r"finetune.lr '1x' and '1.0x' are the same setting at this scale"),
        ("finetune.method=[full, full]", "are the same value"),
    ],
)
def test_one_value_stands_once_on_an_axis(change, message):
    with pytest.raises(UserError, match=message):
        resolve_study(apply_overrides(STUDY, [change]))


def test_an_override_reaches_a_name_with_dots():
    tree = {"arms": {"dropout-0.02": {"posttrain": {"dropout": 0.02}}}}
    assert split_path(tree, "arms.dropout-0.02.posttrain.dropout") == ("arms", "dropout-0.02", "posttrain", "dropout")
    changed = apply_overrides(tree, ["arms.dropout-0.02.posttrain.dropout=0.03"])
    assert changed == {"arms": {"dropout-0.02": {"posttrain": {"dropout": 0.03}}}}


_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.floats(allow_nan=False), st.sampled_from(TEXTS),
    st.text(st.characters(codec="utf-8", exclude_characters="\ufeff")),
)  # fmt: skip


@given(st.dictionaries(st.text("abc.-_019", min_size=1), st.one_of(_scalars, st.lists(_scalars)), min_size=1))
def test_what_a_study_writes_it_reads_again(tree):
    assert read_mapping(write_yaml(tree).encode(), "s.yaml") == tree
