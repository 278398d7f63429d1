import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from torchloom.errors import InputError
from torchloom.system.locks import Locks

HOLD = """
import sys, time
from pathlib import Path
from torchloom.system.locks import Locks
locks = Locks(Path(sys.argv[1]))
locks.wait_for("task")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    ours, theirs = Locks(tmp_path / "locks"), Locks(tmp_path / "locks")
    ours.wait_for("task")
    ours.wait_for("task")  # a second time is once
    assert not theirs.take("task")
    assert theirs.take("other")
    ours.release("task", "unknown")
    assert theirs.take("task")
    theirs.release()
    assert ours.take("task")
    assert ours.take("other")


def test_waiting_says_for_whom_and_ends_with_the_other_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = holder(tmp_path, 1.0)
    Locks(tmp_path).wait_for("task")
    assert process.wait(60) == 0
    assert f"waiting: task is in use by process {process.pid} on " in caplog.text


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    process = holder(tmp_path, 60)
    locks = Locks(tmp_path)
    assert not locks.take("task")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert locks.take("task")


def test_the_note_says_who_holds_it(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    locks.wait_for("task")
    note = json.loads((tmp_path / "task.json").read_text())
    assert note["process"] == os.getpid()
    assert f"process {os.getpid()} on {note['host']} since {note['since']}: " in locks.holder("task")
    (tmp_path / "task.json").write_text("{")
    assert locks.holder("task") == "another run"


def test_the_locks_of_a_task_in_other_environments_are_known(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    for name in ("mnist_mlp", "mnist_mlp@debug", "mnist_mlp@profile", "mnist_mlp_large@debug"):
        assert locks.take(name)
    assert locks.known("mnist_mlp@*") == ["mnist_mlp@debug", "mnist_mlp@profile"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file")
    with pytest.raises(InputError, match=r"records/locks: cannot be written \(Not a directory\)"):
        Locks(tmp_path / "records" / "locks").wait_for("task")
