"""tasks/<task>-<hash>.json: the examples of a task of the user's own, written out.

So a study folder needs no other file when its checkpoints are evaluated.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from indelible.records.base import Record, Tally
from indelible.strict import Positive

TaskKind = Literal["multiple_choice", "exact_match"]


class TaskExample(BaseModel):
    """One example as a model sees it."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    choices: tuple[str, ...] = ()  # of a multiple choice
    answer: Tally = 0  # the number of the right one
    accepted: tuple[str, ...] = ()  # of an exact match: any of these is right


class TaskExamples(Record):
    """What lm-eval is given of a task of the user's own. Text is text: nothing in it is a template any more."""

    task: str
    content: str  # sha256 of the task file's settings and of its data
    kind: TaskKind
    separator: str  # between a prompt and an answer
    few_shot: Tally  # of `shots`, the first ones, in front of every prompt
    length_normalised: bool  # choices are ranked by log-probability a character
    ignore_case: bool
    max_new_tokens: Positive  # of an exact match: generated at most; a line break ends an answer
    shots: tuple[TaskExample, ...]
    examples: tuple[TaskExample, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _examples_are_of_the_kind(self) -> Self:
        for one in (*self.examples, *self.shots):
            is_right = 0 <= one.answer < len(one.choices) if self.kind == "multiple_choice" else bool(one.accepted)
            if not is_right:
                raise ValueError(f"an example has no right answer: {one.prompt[:60]!r}")
        if self.few_shot > len(self.shots):
            raise ValueError(f"few_shot {self.few_shot} is more than the {len(self.shots)} shots")
        return self

    @property
    def metric(self) -> str:
        """What lm-eval calls the measure whose mean is the accuracy."""
        if self.kind == "exact_match":
            return "exact_match"
        return "acc_norm" if self.length_normalised else "acc"

    def context(self, example: TaskExample) -> str:
        """What the model reads in front of an answer: the solved examples, and the prompt."""
        solved = (f"{one.prompt}{self.separator}{_right(one)}" for one in self.shots[: self.few_shot])
        return SHOT_END.join([*solved, example.prompt])


SHOT_END = "\n\n"  # between a solved example and what follows


def _right(example: TaskExample) -> str:
    return example.choices[example.answer] if example.choices else example.accepted[0]
