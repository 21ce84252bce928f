"""The page at ``/``, and the connections for Airflow as text."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from aiohttp import web

from speechkit_emulator import __version__
from speechkit_emulator.connections import PATH, ConnectionForm, connections, written
from speechkit_emulator.samples import samples

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Welcome:
    """Endpoints that describe a running emulator; no authorization, loopback only.

    :param addresses: its addresses and keys
    :param database: the DuckDB file that the connection `warehouse` names
    """

    def __init__(self, addresses: Mapping[str, str], database: Path) -> None:
        self._addresses = addresses
        self._connections = connections(addresses, database)

    def routes(self) -> list[web.RouteDef]:
        """The two routes."""
        return [web.get("/", self.page), web.get(PATH, self.connections)]

    async def connections(self, request: web.Request) -> web.Response:
        """The connections for Airflow, in the requested ``form``."""
        try:
            form = ConnectionForm(request.query.get("form", ConnectionForm.ENV))
        except ValueError:
            return web.json_response({"error": f"form must be one of {', '.join(ConnectionForm)}"}, status=400)
        return web.Response(text=written(self._connections, form))

    async def page(self, request: web.Request) -> web.Response:
        """The landing page."""
        bucket = self._addresses["bucket"]
        calls = "".join(
            f"<tr><td><code>s3://{escape(bucket)}/{escape(sample.key)}</code></td>"
            f"<td>{sample.duration_ms / 1000:.0f} s</td><td>{escape(sample.text[0])} …</td></tr>\n"
            for sample in samples()
        )
        text = Template(files("speechkit_emulator").joinpath("welcome.html").read_text()).substitute(
            {name: escape(value) for name, value in self._addresses.items()},
            **{form: escape(written(self._connections, form)) for form in ConnectionForm},
            path=PATH,
            database=escape(self._connections["warehouse"]["host"]),
            calls=calls,
            version=__version__,
        )
        return web.Response(text=text, content_type="text/html")
