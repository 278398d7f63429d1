"""The static site of `kedro viz build`, completed after the command.

kedro-viz 12.5 leaves out one answer of its server, which the page asks for and, without it, reports errors in the
browser's console; and it names a font of another server, which a page without the network cannot have either.
"""

from __future__ import annotations

import re
from pathlib import Path

from kedro.framework.cli.hooks import cli_hook_impl


class SiteHooks:
    @cli_hook_impl
    def after_command_run(self, command_args: list[str]) -> None:
        if command_args[:2] == ["viz", "build"]:
            complete(Path("build"))


def complete(site: Path) -> None:
    """Make what lies in the folder a site that has all that it asks for."""
    page = site / "index.html"
    if not page.is_file():
        return
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"<link[^>]*https://fonts\.[^>]*>\s*", "", text), encoding="utf-8")
    if not (site / "api" / "metadata").exists():
        from kedro_viz.api.rest.responses.metadata import MetadataAPIResponse, get_metadata_response

        answer = MetadataAPIResponse.model_validate(get_metadata_response(), from_attributes=True)
        (site / "api" / "metadata").write_text(answer.model_dump_json(), encoding="utf-8")


hooks = SiteHooks()
