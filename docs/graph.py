"""The static site of `kedro viz build` in a headless Chromium: for a picture of a task's graph, and for the tests.

    uv run python -m docs.graph --env sample cifar_resnet docs/graph.png

The environment's data are those of earlier runs; the picture shows what they left. Chromium is the one that is
installed (`apt-get install chromium`, Google Chrome, or `playwright install chromium`).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import ConsoleMessage, Locator, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = ("disable-background-networking", "disable-component-update", "disable-sync", "no-first-run", "no-sandbox")
GLIDE = 2000  # milliseconds that the graph takes to come to rest
# What the page remembers of a user: no hints, a light background, nothing beside the graph.
SETTINGS = {
    "showFeatureHints": False,
    "theme": "light",
    "visible": {"miniMap": False, "sidebar": False, "slicing": False},
}


def find_chromium() -> str | None:
    """The path of the Chromium to drive; None when there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        with sync_playwright() as playwright:
            found = str(playwright.chromium.executable_path)  # where `playwright install chromium` puts one
    return found if Path(found).is_file() else None


def build(project: Path, env: str) -> Path:
    """Run `kedro viz build --include-previews`; returns the folder of the site."""
    command = [sys.executable, "-m", "kedro", "viz", "build", "--include-previews"]
    subprocess.run(command, cwd=project, env={**os.environ, "KEDRO_ENV": env}, check=True)  # noqa: S603  (our own command)
    return project / "build"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which the folder can be seen from this machine."""
    handler = functools.partial(_Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def opened(site: Path, chromium: str) -> Iterator[tuple[Page, list[str]]]:
    """A page of a new browser, and the complaints so far: errors on its console, requests that failed.

    Requests to other machines fail, whether there is a network or not.
    """
    complaints: list[str] = []

    def complain(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(f"console: {message.text}")

    with sync_playwright() as playwright, served(site) as address:
        browser = playwright.chromium.launch(executable_path=chromium, args=[f"--{flag}" for flag in QUIET])
        page = browser.new_page(base_url=address, viewport={"width": 1900, "height": 1200}, device_scale_factor=1.5)
        page.add_init_script(f"localStorage.KedroViz ??= {json.dumps(json.dumps(SETTINGS))}")
        page.route(lambda url: not url.startswith((address, "blob:", "data:")), lambda route: route.abort())
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url} {request.failure}"))
        page.on("console", complain)
        yield page, complaints
        browser.close()


def node_id(site: Path, pipeline: str, name: str) -> str:
    """What kedro-viz calls the stage or the dataset of this name in its pages; it calls a group by its own name."""
    nodes = json.loads((site / "api" / "pipelines" / pipeline).read_text(encoding="utf-8"))["nodes"]
    return next(str(node["id"]) for node in nodes if name in (node["name"], f"{pipeline}.{node['name']}"))


def drawn(page: Page, node: str) -> Locator:
    """The node of this id in the graph."""
    return page.locator(f".pipeline-node[data-id='{node}']")


def show(page: Page, pipeline: str, *, expanded: bool = False) -> None:
    """Wait until the graph of the pipeline is drawn, its groups closed or open."""
    page.goto(f"/?pid={pipeline}&expandAllPipelines={str(expanded).lower()}")
    page.wait_for_selector(".pipeline-node")
    page.wait_for_timeout(GLIDE)


def take_picture(page: Page, site: Path, task: str, picture: Path) -> None:
    """The whole graph of the task, its groups open, with what there is to know of the stage that trains it."""
    show(page, task, expanded=True)
    drawn(page, node_id(site, task, f"{task}.train")).click()
    page.wait_for_timeout(GLIDE)
    _fit(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(GLIDE)
    page.screenshot(path=picture)


def _fit(page: Page) -> None:
    """A little smaller, and between what lies beside it: kedro-viz looks at the height of a graph only."""
    page.get_by_label("Zoom out").click()
    page.wait_for_timeout(GLIDE)
    boxes = [box for node in page.locator(".pipeline-node").all() if (box := node.bounding_box())]
    graph, panel = page.locator("#pipeline-graph").bounding_box(), page.locator(".pipeline-metadata").bounding_box()
    assert graph
    assert panel
    middle = (min(box["x"] for box in boxes) + max(box["x"] + box["width"] for box in boxes)) / 2
    start, height = graph["x"] + 300, graph["y"] + 20  # where nothing is drawn
    page.mouse.move(start, height)
    page.mouse.down()
    page.mouse.move(start + (graph["x"] + panel["x"]) / 2 - middle, height, steps=5)
    page.mouse.up()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--env", default="local")
    parser.add_argument("--project", type=Path, default=Path())
    arguments = parser.parse_args()
    chromium = find_chromium() or sys.exit("There is no Chromium: apt-get install chromium")
    site = build(arguments.project, arguments.env)
    with opened(site, chromium) as (page, complaints):
        take_picture(page, site, arguments.task, arguments.picture)
    sys.exit("\n".join(complaints) or None)


if __name__ == "__main__":
    main()
