"""The one exception for what a user can mend."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from kedro.io import DatasetError

LONGEST_LINE = 2000  # characters
SECRETS = (  # in an address: a password, and what a link is signed with
    re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)"),
    re.compile(r"([?&][\w.-]*(?:sig|signature|token|secret|password|credential|key)=)[^&\s'\"]+", re.IGNORECASE),
)


class InputError(click.ClickException, DatasetError):
    """Wrong parameters, files or data: the message names what is wrong and what to do.

    A `ClickException`, so that `kedro run` prints the message without a traceback; a `DatasetError`, so that
    Kedro hands it on as it is when a catalog entry raises it. The message may quote what files hold: it is made
    printable.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"Error: {self.message}"]


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the log about an error says what its message does not say anyhow, when the command ends."""
    return record.levelno < logging.ERROR or not isinstance(sys.exc_info()[1], InputError)


@contextmanager
def telling(place: object) -> Iterator[None]:
    """What is wrong is said to be so of `place`, such as a file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error.message}") from error


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal escaped, save line ends, and long lines and secrets cut."""
    return "\n".join("".join(map(_escaped, _cut(line))) for line in without_secrets(text).split("\n"))


def without_secrets(text: str) -> str:
    """`text` with … in place of the passwords and signatures of addresses."""
    for secret in SECRETS:
        text = secret.sub(r"\1…", text)
    return text


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _cut(line: str) -> str:
    """What to do stands at the end, so that the middle is left out."""
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} … {line[-LONGEST_LINE // 2 :]}"
