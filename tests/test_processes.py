"""Processes that pass on what they say."""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from torchloom.errors import InputError
from torchloom.system.processes import LIBRARIES, run_processes


def speak(words: list[str], say: Callable[[Any], None]) -> None:
    for word in words:
        if word == "wrong":
            raise InputError("something is wrong")
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "wait":
            time.sleep(60)
        say((os.getpid(), word))


def tell(name: str, say: Callable[[Any], None]) -> None:
    say((os.environ.get(name), "torch" in sys.modules))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_say_what_they_have_to_say_and_end() -> None:
    said = list(run_processes(speak, [(["a", "b"],), (["c"],)]))
    assert sorted(word for _, word in said) == ["a", "b", "c"]
    assert len({pid for pid, _ in said}) == 2
    messages = run_processes(speak, [(["a", "wait"],)])
    pid, _ = next(messages)
    messages.close()
    assert not alive(pid)


def test_they_have_the_environment_of_their_parent_and_share_libraries_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the process that they are forked from began before."""
    assert list(run_processes(tell, [("TORCHLOOM_TOLD",)])) == [(None, True)]
    monkeypatch.setenv("TORCHLOOM_TOLD", "yes")
    assert list(run_processes(tell, [("TORCHLOOM_TOLD",)])) == [("yes", True)]
    assert [name for name in LIBRARIES if name.startswith("torchloom")] == ["torchloom.system.forkserver"]


@pytest.mark.long
@pytest.mark.parametrize(("last", "message"), [("wrong", "^something is wrong$"), ("die", "exit status -9")])
def test_one_process_that_fails_ends_all(last: str, message: str) -> None:
    pids: list[int] = []
    with pytest.raises(InputError, match=message):
        pids.extend(pid for pid, _ in run_processes(speak, [(["a", "wait"],), (["a", last],)]))
    assert pids
    assert not any(map(alive, pids))
