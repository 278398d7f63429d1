"""Predictions over HTTP: the application in this process, and `kedro serve` as a process with a real client."""

import asyncio
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from kedro.framework.startup import bootstrap_project
from PIL import Image

import exported
from conftest import ROOT
from tests.sounds import save, tone
from torchloom.cli import serve
from torchloom.config import ContinueConfig, ServeConfig
from torchloom.data.text import Tokenizer
from torchloom.errors import InputError
from torchloom.inference.serving import HOST, create_app, listen
from torchloom.modalities import TextInfo
from torchloom.modalities.documents import pad
from torchloom.modalities.draws import drawn
from torchloom.problems.language_model.config import GenerateConfig
from torchloom.problems.language_model.generation import continue_text, stepper

pytestmark = pytest.mark.xdist_group("export")  # in one process, for the sake of what the tests share

GENERATE = ContinueConfig(length=5, temperature=2.0)
FIELDS = {"documents": "texts", "text": "prompts", "table": "rows", "series": "series"}
GOOD: dict[str, Any] = {"documents": "a good film", "text": "abc", "table": {"age": 50, "bmi": 25}}


class Client:
    """Asks the application in this process, without a network between."""

    def __init__(self, kind: str, **settings: Any) -> None:
        config = ServeConfig(models="", **{"generate": GENERATE, "top": 2, **settings})
        self.app = create_app(exported.model(kind), "a_task", config)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self.ask("GET", path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self.ask("POST", path, **options))

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            return await client.request(method, path, **options)


async def parts(count: int, size: int) -> AsyncIterator[bytes]:
    """A body whose length is not known beforehand."""
    for _ in range(count):
        yield b"x" * size


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def ask(kind: str, items: list[Any], **settings: Any) -> httpx.Response:
    return Client(kind, **settings).post("/predict", json={FIELDS[kind]: items})


# ---- answers -------------------------------------------------------------------------------------------------------


def requests(*parts: str) -> list[str]:
    """The command lines of docs/how-to/serve.md that ask for something with one of these parts."""
    lines = (ROOT / "docs/how-to/serve.md").read_text().splitlines()
    return [line for line in lines if line.startswith("curl -d") and any(part in line for part in parts)]


def test_the_guide_on_generators(tmp_path: Path) -> None:
    """What its line writes is the picture of that seed."""
    (line,) = requests('"seed"')
    request, _, reading = line.partition(" | ")
    answer = Client("draws").post("/predict", content=shlex.split(request)[2])
    assert answer.status_code == 200, answer.text
    subprocess.run([sys.executable, *shlex.split(reading)[1:]], input=answer.content, cwd=tmp_path, check=True)
    seven = exported.model("draws").run("images", latents=drawn(7, 3)[None])[0, 0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "7.png")), (255 * seven).round().astype(np.uint8))
    (row,) = Client("reconstruction").post("/predict", content=png(exported.picture())).json()
    assert [*row] == ["mse", "latent_1", "latent_2", "latent_3"]


def test_the_guide_on_labelled_series() -> None:
    series = {
        "in a row": np.array([[0.1], [0.4], [0.9], [0.3]]),
        "in rows": np.array([[0.1, 0.2], [0.1, 0.2], [0.1, 0.2], [0.4, 0.8]]),  # the first again, as in training
        "in a cell": np.array([[0.1], [0.4], [0.9], [0.3]]),
    }
    for (kind, values), line in zip(series.items(), requests('"t0"', '"step"', '"wave"'), strict=True):
        answer = Client(kind).post("/predict", content=shlex.split(line)[2])
        assert answer.status_code == 200, answer.text
        (shares,) = exported.probabilities(kind, values[None].astype(np.float32))
        assert answer.json() == [classified(shares, ["slow", "quick"])], kind


def classified(shares: np.ndarray, classes: list[str]) -> dict[str, Any]:
    best, second = np.argsort(-shares)[:2]
    return {
        "class_1": classes[best],
        "probability_1": pytest.approx(shares[best], abs=1e-5),
        "class_2": classes[second],
        "probability_2": pytest.approx(shares[second], abs=1e-5),
    }


def test_a_picture_is_classified() -> None:
    response = Client("images").post("/predict", content=png(exported.picture()))
    assert response.status_code == 200
    shares = exported.probabilities("images", exported.picture()[None, None])
    assert response.json() == [classified(shares[0], exported.CLASSES)]


def test_a_picture_is_reconstructed() -> None:
    images = exported.picture()[None, None]
    (answer,) = Client("reconstruction").post("/predict", content=png(images[0, 0])).json()
    reconstruction, latent, _ = exported.answers("reconstruction", images)
    assert answer.pop("mse") == pytest.approx(((images / 255 - reconstruction) ** 2).mean(), abs=1e-5)
    assert answer == {f"latent_{place + 1}": pytest.approx(latent[0, place], abs=1e-5) for place in range(3)}


def test_texts_are_classified() -> None:
    texts = ["A good film!", "bad"]
    batch = pad([exported.WORDS.encode(text) for text in texts])
    shares = exported.probabilities("documents", batch["tokens"], batch["lengths"])
    assert ask("documents", texts).json() == [classified(row, ["bad", "good"]) for row in shares]


def test_prompts_are_continued() -> None:
    config = GenerateConfig(prompt="abc", **GENERATE.model_dump())
    seed = zlib.crc32(b"abc")
    text = continue_text(stepper(exported.checkpoint("text").build()), exported.LETTERS, config, seed)
    assert ask("text", ["abc"]).json() == [{"prompt": "abc", "continuation": text[3:]}]


def test_rows_are_answered() -> None:
    rows = [{"bmi": 20, "age": 40}, {"age": 60.5, "bmi": "30", "name": "Alice"}]
    expected = exported.answers("table", np.array([[40, 20], [60.5, 30]], dtype=np.float32))
    assert ask("table", rows).json() == [{"glucose": pytest.approx(value, rel=1e-5)} for value in expected]


def test_series_are_forecast() -> None:
    rows = [{"day": f"2024-01-{day:02}", "heat": 0.1 * day, "load": 50 + day} for day in range(25, 31)]
    expected = exported.answers("series", np.array([[[50 + day, 0.1 * day] for day in range(27, 31)]], np.float32))[0]
    (answer,) = ask("series", [rows]).json()
    assert answer == {
        "day": ["2024-01-31", "2024-02-01"],
        "load": pytest.approx(expected[:, 0], rel=1e-5),
        "heat": pytest.approx(expected[:, 1], rel=1e-5),
        "remarks": "",
    }
    assert Client("series").get("/").json()["window"] == 4


def test_what_the_model_is() -> None:
    known = Client("images").get("/").json()
    assert known["model"] == "a_task"
    assert (known["problem"], known["modality"]) == ("classification", "images")
    assert (known["classes"], known["shape"]) == (exported.CLASSES, [1, 6, 8])
    assert (known["fit"], known["value_range"], known["views"]) == ("crop", None, "one")
    assert Client("images", fit="pad").get("/").json()["fit"] == "pad"
    assert Client("documents").get("/").json()["max_tokens"] is None
    known = Client("table").get("/").json()
    assert (known["takes"], known["features"], known["target"]) == ('JSON: {"rows": [...]}', ["age", "bmi"], "glucose")


def test_many_ask_at_once() -> None:
    asked = Client("images")
    bodies = [png(exported.picture(number)) for number in range(20)]

    async def all_at_once() -> list[httpx.Response]:
        return await asyncio.gather(*(asked.ask("POST", "/predict", content=body) for body in bodies))

    together = [response.json() for response in asyncio.run(all_at_once())]
    assert together == [Client("images").post("/predict", content=body).json() for body in bodies]
    assert len({answer[0]["probability_1"] for answer in together}) == 20


# ---- mistakes ------------------------------------------------------------------------------------------------------


def refused(response: httpx.Response, status: int, message: str) -> None:
    assert response.status_code == status, response.text
    assert re.search(message, response.json()["detail"]), response.text


@pytest.mark.parametrize("tokens", ["characters", "subwords"])
def test_a_prompt_that_a_model_of_a_book_does_not_know(tokens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its vocabulary has a place for such; but only subwords, which are made of bytes, go on from it."""
    tokenizer = Tokenizer.learnt(tokens, ["abc abd abe"], 300, 2)
    book = ("language_model", "language_rnn", exported.LANGUAGE_RNN, TextInfo(tokenizer=tokenizer))
    monkeypatch.setitem(exported.KINDS, tokens, book)
    monkeypatch.setitem(FIELDS, tokens, "prompts")
    assert ask(tokens, ["ab a"]).json()[0]["prompt"] == "ab a"
    if tokens == "characters":
        refused(ask(tokens, ["ab", "axöb"]), 422, r"^prompts\[1\]: the vocabulary lacks 'x', 'ö'; it has 'ab '$")
    else:
        assert ask(tokens, ["axöb"]).json()[0]["prompt"] == "axöb"


@pytest.mark.parametrize(
    ("kind", "items", "message"),
    [
        ("documents", ["a film", " -- "], r"^texts\[1\]: holds no words$"),
        ("text", ["abc", "Übung"], r"^prompts\[1\]: the vocabulary lacks 'n', 'u', 'Ü'"),
        ("text", ["\ud800"], r"^prompts\[0\]: '\\\\?ud800' is no character$"),
        ("documents", ["a film", "a \ud800 film"], r"^texts\[1\]: '\\\\?ud800' is no character$"),
        ("text", [""], r"^prompts\[0\]: holds no characters$"),
        ("table", [{"age": 1}], r"^rows\[0\]: lacks 'bmi'$"),
        ("table", [{"age": 1, "bmi": None}], r"^rows\[0\]: lacks 'bmi'$"),
        ("table", [{"age": 1, "bmi": "x"}], r"^rows\[0\]: bmi: 'x' is not a number$"),
        ("table", [{"age": 1, "bmi": "1_000"}], r"^rows\[0\]: bmi: '1_000' is not a number$"),
        ("table", [{"age": 3e38, "bmi": -3e38}], r"^the model's glucose is -?(inf|nan): the input is far"),
        ("table", [[1, 2]], r'^the body must be {"rows": \[\.\.\.\]} with a list of objects'),
        ("series", [[{"day": "2024-01-01", "load": 1, "heat": 1}]], r"^series\[0\]: needs 4 rows, 1 day apart, up to"),
        ("series", [[{"day": "2024-01-01", "load": 1}]], r"^series\[0\]: lacks 'heat'$"),
        ("series", [[1]], r"^series\[0\]: must be rows of a table"),
        ("series", [{}], "with a list of lists"),
        (
            "series",
            [[{"day": f"2024-01-0{day}", "load": 3e38 * (-1) ** day, "heat": 1} for day in range(1, 5)]],
            r"^the model's load is \[.*: the input is far",
        ),
        ("documents", [1], "with a list of strings"),
        ("documents", [], "with a list of strings"),
        ("documents", ["film"] * 4, "^texts: 4 are more than 3 in one request$"),
    ],
)
def test_what_is_wrong_with_a_list(kind: str, items: list[Any], message: str) -> None:
    body = json.dumps({FIELDS[kind]: items})
    refused(Client(kind, most=3).post("/predict", content=body), 422, message)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_not_finite(number: str) -> None:
    body = f'{{"rows": [{{"age": {number}, "bmi": 1}}]}}'
    refused(Client("table").post("/predict", content=body), 422, r"^rows\[0\]: age: .* is not a finite number")


@pytest.mark.parametrize("body", ['{"rows": [{"age": 1, "bmi": 2, "age": 3}]}', '{"rows": [], "rows": [{}]}'])
def test_of_two_values_of_one_name_neither_is_taken(body: str) -> None:
    message = "^an object of the body names '(age|rows)' more than once, and only one can be meant$"
    refused(Client("table").post("/predict", content=body), 422, message)


@pytest.mark.parametrize("kind", ["documents", "text", "table"])
@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("", 400, "^the request has no body$"),
        ("film", 400, "^the body is not JSON "),
        ("\ufffe".encode("utf-16"), 400, "^the body is not JSON "),
        ("[" * 100_000, 400, "^the body is not JSON "),
        ("7", 422, "^the body must be "),
        ("{}", 422, "^the body must be "),
        ('{"items": ["film"]}', 422, "^the body must be "),
        ('{"texts": ["a"], "prompts": ["a"], "rows": [{}]}', 422, "and nothing else$"),
    ],
)
def test_what_is_wrong_with_json(kind: str, body: str | bytes, status: int, message: str) -> None:
    refused(Client(kind).post("/predict", content=body), status, message)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "^the request has no body$"),
        (b"hello", 422, "^the body: is not a picture that can be read here"),
        (png(exported.picture())[:60], 422, "^the body: is a damaged picture"),
    ],
)
def test_what_is_wrong_with_a_picture(body: bytes, status: int, message: str) -> None:
    refused(Client("images").post("/predict", content=body), status, message)


def test_a_body_that_is_too_large() -> None:
    message = "^the request is larger than 1,000,000 bytes$"
    asked = Client("documents", megabytes=1)
    refused(asked.post("/predict", content=b"x" * 1_000_001), 413, message)
    refused(asked.post("/predict", content=parts(2, 600_000)), 413, message)
    refused(asked.post("/predict", content=b"x" * 1_000_000), 400, "^the body is not JSON")


def test_a_body_that_says_it_is_something_else() -> None:
    picture = png(exported.picture())
    pictures, texts = Client("images"), Client("documents")
    refused(pictures.post("/predict", files={"file": picture}), 415, "^the body is said to be multipart/form-data; it")
    refused(pictures.post("/predict", json={"texts": ["a"]}), 415, "it must be a picture as it is in its file$")
    refused(texts.post("/predict", content=picture, headers={"content-type": "image/png"}), 415, "it must be JSON")
    for kind in ("application/x-www-form-urlencoded", "application/octet-stream", "image/png"):
        assert pictures.post("/predict", content=picture, headers={"content-type": kind}).status_code == 200


def test_a_sound_is_the_body(tmp_path: Path) -> None:
    asked, path = Client("audio"), save(tmp_path / "a.wav", tone(200, 0.5, 4000), 4000)
    said = asked.get("/").json()
    assert (said["takes"], said["rate"], said["seconds"]) == ("a sound as it is in its file", 1000, 10.0)
    batch = exported.SOUNDS.batch([exported.SOUNDS.read(path.open("rb"))])
    (shares,) = exported.probabilities("audio", batch["waveforms"], batch["lengths"])
    for kind in ("audio/wav", "application/octet-stream", "application/x-www-form-urlencoded"):
        answer = asked.post("/predict", content=path.read_bytes(), headers={"content-type": kind})
        assert answer.json() == [classified(shares, ["high", "low"])]
    refused(asked.post("/predict", content=b"no sound"), 422, "^the body: cannot be read as sound")
    refused(asked.post("/predict", json={"sounds": []}), 415, "it must be a sound as it is in its file$")
    texts = Client("documents").post("/predict", content=path.read_bytes(), headers={"content-type": "audio/wav"})
    refused(texts, 415, "it must be JSON")


def test_paths_methods_and_hosts_that_are_not_there() -> None:
    asked = Client("images")
    assert asked.get("/predict").status_code == 405
    assert asked.post("/").status_code == 405
    assert asked.get("/nothing").status_code == 404
    assert asked.get("/", headers={"host": "evil.example"}).status_code == 400


# ---- the command ---------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken() -> None:
    with listen(0) as listener:
        host, port = listener.getsockname()
        assert host == HOST
        with pytest.raises(InputError, match=rf"^--port {port}: Address already in use\. Choose another one, or 0"):
            listen(port)
        with pytest.raises(ConnectionRefusedError):  # at another address of the same machine
            socket.create_connection(("127.0.0.2", port), timeout=5)
    listen(port).close()


def test_the_command_says_what_is_missing(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    bootstrap_project(project)
    with pytest.raises(InputError, match=r"^kedro serve mnist_mlp: there is no data/sample/06_models/mnist_mlp/model"):
        serve.callback(model="mnist_mlp", env="sample", port=0)
    settings = project / "conf/base/parameters/serve.yml"
    settings.write_text(settings.read_text() + "  mots: 3\n")
    with pytest.raises(InputError, match=r"serve\.mots: unknown key \(did you mean most\?\)"):
        serve.callback(model="mnist_mlp", env="sample", port=0)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "torchloom.inference.serving")
    monkeypatch.delattr("torchloom.inference.serving")
    with pytest.raises(
        InputError, match=r"^kedro serve needs uvicorn, .* uv sync --extra serve, .*pip install 'torchloom\[serve\]'$"
    ):
        serve.callback(model="mnist_mlp", env="sample", port=0)


@pytest.mark.long
def test_a_client_asks_the_running_command(project: Path, tmp_path: Path) -> None:
    model, picture = exported.write("images", tmp_path), png(exported.picture())
    (project / "conf/local/parameters.yml").write_text("serve: {megabytes: 1, top: 1}\n")
    command = [sys.executable, "-m", "kedro", "serve", str(model), "--port", "0"]
    environment = {**os.environ, "KEDRO_DISABLE_TELEMETRY": "1"}
    process = subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        found = re.search(r"answers at (http://127\.0\.0\.1:\d+) until Ctrl-C", process.stdout.readline())
        assert found, process.communicate()
        with httpx.Client(base_url=found[1]) as asked:
            shares = exported.probabilities("images", exported.picture()[None, None])[0]
            answer = asked.post("/predict", content=picture)
            assert answer.status_code == 200
            name, share = exported.CLASSES[shares.argmax()], pytest.approx(shares.max(), abs=1e-5)
            assert answer.json() == [{"class_1": name, "probability_1": share}]
            assert asked.get("/").json()["model"] == str(model)
            refused(asked.post("/predict", content=b"x" * 20_000_000), 413, "larger than 1,000,000 bytes")
            refused(asked.post("/predict", content=iter([b"x" * 100_000] * 200)), 413, "larger than 1,000,000 bytes")
            assert asked.post("/predict", content=picture).json() == answer.json()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
