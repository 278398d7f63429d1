"""PostgreSQL's own server, for tests."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from processes import free_port

USER, PASSWORD = "postgres", "never to be seen"


@contextmanager
def postgres() -> Iterator[str]:
    """A new server, with nothing in it; its address, with the password."""
    programs = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    programs += sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # where Debian has it
    if not programs:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    with tempfile.TemporaryDirectory() as place:
        as_user = []
        if os.geteuid() == 0:  # as whom it does not run
            shutil.chown(place, USER)
            as_user = ["runuser", "-u", USER, "--"]
        folder, secret, port = Path(place, "data"), Path(place, "password"), free_port()
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        _run(as_user, programs[0] / "initdb", "-D", folder, "-U", USER, "-A", "scram-sha-256", "--pwfile", secret, "-N")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {place} -F"
        _run(as_user, programs[0] / "pg_ctl", "-D", folder, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/postgres"
        finally:
            _run(as_user, programs[0] / "pg_ctl", "-D", folder, "-m", "immediate", "stop")


def _run(before: list[str], *command: object) -> None:
    subprocess.run([*before, *map(str, command)], check=True, stdout=subprocess.DEVNULL, cwd="/")
