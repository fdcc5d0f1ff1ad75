"""Task files and their data: what is read of them, and that nothing in them is executed or fetched from elsewhere."""

import pytest
from task_files import CAPITALS, CHOICE, MATCH, WORDS, write_lines, write_task

from indelible.errors import UserError
from indelible.records import TaskExample, TaskExamples
from indelible.tasks.examples import most_tokens, read_examples
from indelible.tasks.task_file import read_task_file


def read(tmp_path, settings, records=None):
    return read_examples("capitals", write_task(tmp_path / "task.yaml", settings, records))


def test_a_multiple_choice_is_written_out(tmp_path):
    found = read(tmp_path, CHOICE)
    assert found.metric == "acc"
    assert [one.answer for one in found.examples] == [0, 1, 2, 0, 1]
    assert found.examples[0] == TaskExample(
        prompt="Question: Capital of France?\nAnswer:", choices=("Paris", "Rome", "Oslo"), answer=0
    )
    assert found.examples[2].prompt == "Question: Capital of {question}?\nAnswer:", "a value is text"
    assert read(tmp_path, {**CHOICE, "length_normalised": True}).metric == "acc_norm"


def test_choices_may_be_columns(tmp_path):
    records = [
        {"q": 7, "A": "seven", "B": "eight", "right": "A"},
        {"q": 8, "A": "seven", "B": "eight", "right": "eight"},
        {"q": 9, "A": "nine", "B": "ten", "right": 0},
    ]
    settings = {**CHOICE, "prompt": "{q}:", "choices": ["A", "B"], "answer": "right"}
    found = read(tmp_path, settings, records)
    assert [(one.prompt, one.choices[one.answer]) for one in found.examples] == [
        ("7:", "seven"), ("8:", "eight"), ("9:", "nine")
    ]  # fmt: skip


def test_an_exact_match_takes_one_answer_or_several(tmp_path):
    found = read(tmp_path, MATCH)
    assert [one.accepted for one in found.examples] == [("three",), ("three", "four")]
    assert found.metric == "exact_match"
    assert most_tokens(found) == len("one two ") + 4 + len("two ") + 4


def test_solved_examples_stand_in_front(tmp_path):
    write_lines(tmp_path / "shots.jsonl", [CAPITALS[4], CAPITALS[1]])
    found = read(tmp_path, {**CHOICE, "shots": "shots.jsonl", "few_shot": 1, "limit": 2})
    assert len(found.examples) == 2
    assert len(found.shots) == 1
    assert found.context(found.examples[0]) == (
        "Question: Capital of Peru?\nAnswer: Lima\n\nQuestion: Capital of France?\nAnswer:"
    )


def test_the_content_is_a_hash_of_settings_and_bytes(tmp_path):
    first = read(tmp_path / "a", CHOICE)
    elsewhere = read_examples("other", write_task(tmp_path / "b" / "x.yaml", {**CHOICE, "data": "deep/data.jsonl"}))
    assert elsewhere.content == first.content, "not of names and places"
    assert elsewhere.examples == first.examples
    others = [
        read(tmp_path / "c", {**CHOICE, "prompt": "{question}"}),
        read(tmp_path / "d", {**CHOICE, "limit": 4}),
        read(tmp_path / "e", CHOICE, [*CAPITALS[:4], {**CAPITALS[4], "answer": 0}]),
    ]
    assert len({first.content, *(one.content for one in others)}) == 4


def test_examples_survive_their_file(tmp_path):
    found = read(tmp_path, MATCH)
    found.write(tmp_path / "stored.json")
    again = TaskExamples.read(tmp_path / "stored.json")
    assert again is not None
    assert again.model_copy(update={"format": 0}) == found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "essay"}, "kind = 'essay': Input should be 'multiple_choice' or 'exact_match'"),
        ({"promt": "x"}, r"promt: unknown key \(did you mean 'prompt'\?\)"),
        ({"doc_to_text": "!function utils.f"}, "no functions, templates or data sets are taken from it"),
        ({"dataset_path": "json"}, "dataset_path: unknown key"),
        (
            {"prompt": "{{ question }}"},
            "prompt holds '{{': this is no template language, and nothing in it is executed",
        ),
        ({"prompt": "{% for x in y %}{question}"}, "prompt holds '{%'"),
        ({"prompt": "no column"}, "prompt names no column"),
        ({"prompt": "{question} "}, "prompt ends in a blank, and the separator is one too"),
        ({"choices": None}, "choices is missing"),
        ({"choices": ["A"]}, "two or more different columns"),
        ({"max_new_tokens": 3}, "max_new_tokens: not for kind: multiple_choice"),
        ({"kind": "exact_match"}, "choices: not for kind: exact_match"),
        ({"few_shot": 2}, "few_shot = 2 needs shots"),
        ({"shots": "capitals.jsonl"}, "shots and data are one file"),
        ({"limit": 6}, "holds 5 examples, and limit = 6 of them are asked for"),
        ({"limit": True}, "limit = true: expected a number"),
    ],
)
def test_a_wrong_task_file_is_refused(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, {**CHOICE, **settings})


@pytest.mark.parametrize("tag", ["!function utils.doc", "!!python/object/apply:os.system ['true']"])
def test_tags_that_run_code_are_refused(tmp_path, tag):
    path = write_task(tmp_path / "task.yaml", CHOICE)
    path.write_text(path.read_text() + f"separator: {tag}\n")
    with pytest.raises(UserError, match=r"the tag .* is not read"):
        read_task_file(path)


@pytest.mark.parametrize("name", ["../outside.jsonl", "link.jsonl", "linked/outside.jsonl", "deep/../../outside.jsonl"])
def test_data_outside_of_the_folder_is_refused(tmp_path, name):
    home = tmp_path / "home"
    path = write_task(home / "task.yaml", CHOICE)
    write_lines(tmp_path / "outside.jsonl", CAPITALS)
    (home / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (home / "linked").symlink_to(tmp_path)
    (home / "deep").mkdir()
    path.write_text(path.read_text().replace("capitals.jsonl", name))
    with pytest.raises(UserError, match=r"lies outside of .*home; put the data beside the task file"):
        read_examples("x", path)
    path.write_text(path.read_text().replace(name, str(home / "capitals.jsonl")))
    with pytest.raises(UserError, match="lies outside of"):
        read_examples("x", path)
    path.write_text(path.read_text().replace(str(home / "capitals.jsonl"), "none.jsonl"))
    with pytest.raises(UserError, match=r"data = 'none.jsonl': there is no such file in .*home"):
        read_examples("x", path)


def test_a_task_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"task file .*no\.yaml: cannot be read \(No such file"):
        read_task_file(tmp_path / "no.yaml")


ONE = CAPITALS[0]


@pytest.mark.parametrize(
    ("settings", "records", "message"),
    [
        (
            CHOICE,
            [ONE, {"question": "x", "choices": ["a", "b"]}],
            r"line 2: no column 'answer'; it has 'question', 'ch",
        ),
        (CHOICE, [{**ONE, "question": ""}], r"line 1: column 'question' = ''; expected text that is not empty"),
        (CHOICE, [{**ONE, "question": None}], "column 'question' = None"),
        (CHOICE, [{**ONE, "question": True}], "column 'question' = True"),
        (CHOICE, [{**ONE, "question": "\ud800"}], "half a character"),
        (CHOICE, [{**ONE, "choices": "Paris"}], "must be a list of two or more choices, found 'Paris'"),
        (CHOICE, [{**ONE, "choices": ["a"]}], "must be a list of two or more choices"),
        (CHOICE, [{**ONE, "choices": ["a", "a", "b"]}], "the choice 'a' stands twice"),
        (CHOICE, [{**ONE, "answer": 3}], "'answer' = 3 names no choice; write the number of the right one, 0 to 2, or"),
        (CHOICE, [{**ONE, "answer": -1}], "names no choice"),
        (CHOICE, [{**ONE, "answer": True}], "names no choice"),
        (CHOICE, [{**ONE, "answer": "paris"}], "names no choice"),
        (CHOICE, [], "holds no example"),
        (CHOICE, [[1]], "a JSON list where each line must be an object"),
        (MATCH, [{**WORDS[0], "answer": []}], "is an empty list"),
        (MATCH, [{**WORDS[0], "answer": " three"}], "begins or ends in a blank or has a line break"),
        (MATCH, [{**WORDS[0], "answer": ["a\nb"]}], "begins or ends in a blank or has a line break"),
    ],
)
def test_a_record_that_is_no_example_is_refused(tmp_path, settings, records, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, settings, records)
