"""What was sent of a stage run to a tracker, so that nothing is sent twice."""

from typing import Literal

from pydantic import Field

from indelible.records.base import Record, Tally

TrackerName = Literal["tensorboard", "trackio", "wandb"]


class SentRun(Record):
    """tracking/<tracker>/<run id>/sent.json."""

    id: str
    tracker: TrackerName
    last_steps: dict[str, Tally] = Field(default_factory=dict)  # by group of metrics.jsonl (`train`, `eval/music`):
    # the last step that was sent
    evaluations: tuple[str, ...] = ()  # ids of those that were sent
    is_ended: bool = False  # what result.json says was sent
