"""Bars on a terminal, lines elsewhere."""

import logging
import os
import pty
import re
import sys
import time
from pathlib import Path

import pytest

from conftest import kedro, make_project
from torchloom.system import progress
from torchloom.system.progress import CLOCK, duration, step_bar, track

LENET = ("run", "--env", "sample", "--pipelines", "mnist_lenet", "--to-nodes", "mnist_lenet.evaluate")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(folder: Path, *arguments: str) -> str:
    """What `kedro …` writes to a terminal of 160 columns."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40", "KEDRO_DISABLE_TELEMETRY": "1"}
        os.execv(sys.executable, [sys.executable, "-m", "kedro", *arguments])
    written = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # it has ended
            break
        if not part:
            break
        written += part
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, written.decode()
    return written.decode()


def left_on_screen(written: str) -> list[str]:
    """The lines that are there in the end, by the escapes that rich uses: line up, erase the line."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif re.fullmatch(r"\x1b\[\d*A", token):
            row -= int(token[2:-1] or 1)
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token == "\r":
            pass
        elif not token.startswith("\x1b"):
            lines[row] += token
    return [line.rstrip() for line in lines if line.strip()]


@pytest.mark.long
def test_bars_are_shown_and_vanish(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    written = on_a_terminal(project, *LENET, "--params", "mnist_lenet.train.epochs=3,mnist_lenet.train.batch_size=16")
    plain = ESCAPES.sub("", written)
    assert re.search(r"epoch 2/3 .*\d+/\d+ +train_|epoch 2/3 .*loss \d\.\d+", plain)
    assert re.search(r"samples/s  \d+\.\d\d GB  all epochs \d:\d\d", plain)
    screen = left_on_screen(written)
    assert not [line for line in screen if "━" in line]
    for line in screen:
        if "epoch " in line:
            assert re.match(r"\d\d:\d\d:\d\d  epoch [123]/3  train_loss \d", line), line
    assert sum("epoch " in line and "train_loss" in line for line in screen) == 3


@pytest.mark.long
def test_elsewhere_there_are_lines_and_with_the_quiet_configuration_only_warnings(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    said = kedro(project, *LENET, "--params", "mnist_lenet.train.epochs=2")
    assert said.returncode == 0
    assert "epoch 2/2  train_loss" in said.stderr
    assert not re.search("━|\x1b\\[2K", said.stdout + said.stderr)
    config = "conf/logging_quiet.yml"
    quiet = kedro(project, *LENET, "--params", "mnist_lenet.train.epochs=2", KEDRO_LOGGING_CONFIG=config)
    assert quiet.returncode == 0
    assert not re.search(r"epoch \d|Running node|━", quiet.stdout + quiet.stderr)


def test_a_line_is_due_after_a_minute_of_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr(CLOCK, "heard", now)
    with caplog.at_level(logging.INFO), step_bar() as bar:
        task = bar.add_task("epoch 2/8", total=400, status="loss 0.5")
        bar.update(task, completed=100)
        assert caplog.messages == []
        now += 61
        bar.update(task, completed=200)
        bar.update(task, completed=201)
        assert len(caplog.messages) == 1
        assert re.match(r"epoch 2/8: 200 of 400  .*loss 0\.5", caplog.messages[0])
        now += 30
        logging.getLogger("torchloom.elsewhere").info("something")
        now += 31
        bar.update(task, completed=300)
        assert len(caplog.messages) == 2
        now += 30
        bar.update(task, completed=301)
        assert len(caplog.messages) == 3


def test_what_is_tracked_comes_as_it_is() -> None:
    assert list(track(range(3), "things")) == [0, 1, 2]
    assert [duration(seconds) for seconds in (0, 59.6, 61, 3723)] == ["0:00", "1:00", "1:01", "1:02:03"]
