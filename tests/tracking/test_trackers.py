"""The trackers' own libraries, where they are installed: what is read back is what the folder says."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from indelible.tracking.sending import send_all


def _last_run(folder: Path) -> str:
    return json.loads((folder / "plan.json").read_text())["stage_runs"][-1]["id"]


def test_tensorboard_reads_what_was_written(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_id = _last_run(folder)
    path = folder / "runs" / run_id / "metrics.jsonl"
    text = path.read_text()
    path.write_text("".join(text.splitlines(keepends=True)[:60]))
    sent = send_all(folder, "tensorboard")
    assert (sent.runs, sent.reason) == (4, "")
    path.write_text(text)
    assert send_all(folder, "tensorboard").runs == 1
    assert send_all(folder, "tensorboard").runs == 0
    read = EventAccumulator(str(folder / "tracking" / "tensorboard" / run_id), size_guidance={"scalars": 0})
    read.Reload()
    lines = [json.loads(line) for line in text.splitlines()]
    for key in ("train/loss", "eval/chemistry/nats_per_token", "watch/music/nats_per_token"):
        wanted = [(line["step"], line[key]) for line in lines if key in line]
        got = sorted((one.step, one.value) for one in read.Scalars(key))
        assert [step for step, _ in got] == [step for step, _ in wanted]
        assert [value for _, value in got] == pytest.approx([value for _, value in wanted])
    assert len(read.Scalars("heldout/music/nats_per_token")) == 1
    (lineage,) = read.Tensors("lineage/text_summary")
    assert b"| ancestors | pretrain" in lineage.tensor_proto.string_val[0]
    assert "_hparams_/session_start_info" in read.Tags()["tensors"]
    (result,) = read.Tensors("result/text_summary")
    assert b"| status | done |" in result.tensor_proto.string_val[0]


def test_wandb_offline_keeps_what_was_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    sent = send_all(folder, "wandb")
    assert (sent.runs, sent.reason) == (4, "")
    assert send_all(folder, "wandb").runs == 0
    run_id = _last_run(folder)
    (path,) = folder.glob(f"tracking/wandb/wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    losses, config = [], {}
    for data in _wandb_records(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        if "train/loss" in items:
            losses.append((json.loads(items["optimizer_step"]), json.loads(items["train/loss"])))
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    lines = [json.loads(line) for line in (folder / "runs" / run_id / "metrics.jsonl").read_text().splitlines()]
    assert losses == [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]
    assert config["stage"] == "finetune"
    assert config["arm.finetune_lr"] == 1e-3


def _wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: 7 bytes, then LevelDB's log format (blocks of 32 KiB; checksum, length, type)."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield parts
            parts = b""


def test_trackio_keeps_what_was_sent(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from indelible.tracking.sending import send_all\n"
        "print(send_all(Path(sys.argv[1]), 'trackio'), send_all(Path(sys.argv[1]), 'trackio'))\n"
        "import trackio; run = trackio.Api().runs('indelible')\n"
        "print(*[one.name for one in run])\n"
    )
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when its library is imported
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    first, names = done.stdout.splitlines()[-2:]
    assert first.startswith("Sent(runs=4,")
    assert "Sent(runs=0, points=0, waiting=[], waiting_points=0, reason='')" in first
    assert _last_run(folder) in names.split()
    assert (tmp_path / "trackio" / "indelible.db").stat().st_size > 10_000
