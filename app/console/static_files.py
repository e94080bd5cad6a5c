"""The console's static files and the page at /docs, from this package: no request leaves the service."""

import asyncio
import gzip
import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fastapi import APIRouter, Request, Response

from app.core.errors import NotFound

_FOLDER: Final = Path(__file__).parent / "static"
_MEDIA_TYPES: Final = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
        ".woff2": "font/woff2",
    }
)
_COMPRESSED: Final = frozenset({".css", ".js", ".svg"})
_FOR_EVER: Final = "public, max-age=31536000, immutable"


class StaticFiles:
    """The files of `static/`; their URLs change with the content of any, so browsers keep them for ever."""

    def __init__(self) -> None:
        paths = sorted(path for path in _FOLDER.rglob("*") if path.suffix in _MEDIA_TYPES)
        self._paths = {path.relative_to(_FOLDER).as_posix(): path for path in paths}
        self._gzipped: dict[Path, bytes] = {}
        digest = hashlib.sha256()
        for path in paths:
            digest.update(path.read_bytes())
        self._digest = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """The URL of a file, such as `console.css`."""
        return f"/console/static/{self._digest}/{name}"

    async def response(self, request: Request, digest: str, name: str) -> Response:
        """The file, compressed where the browser takes that. Raises `NotFound`."""
        path = self._paths.get(name)
        if path is None:
            raise NotFound("There is no such file.")
        headers = {"Cache-Control": _FOR_EVER if digest == self._digest else "no-cache", "Vary": "Accept-Encoding"}
        is_compressed = path.suffix in _COMPRESSED and "gzip" in request.headers.get("accept-encoding", "")
        if is_compressed:
            headers["Content-Encoding"] = "gzip"
        content = await asyncio.to_thread(self._gzip if is_compressed else Path.read_bytes, path)
        return Response(content, media_type=_MEDIA_TYPES[path.suffix], headers=headers)

    def _gzip(self, path: Path) -> bytes:
        if path not in self._gzipped:
            self._gzipped[path] = gzip.compress(path.read_bytes(), mtime=0)
        return self._gzipped[path]


_DOCS: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>rivya-receiver: the API</title>
<link rel="icon" href="{icon}" type="image/svg+xml">
<link rel="stylesheet" href="{style}">
<script src="{bundle}" defer></script>
<script src="{script}" defer></script>
</head>
<body><div id="swagger-ui"></div></body>
</html>
"""


def router(files: StaticFiles) -> APIRouter:
    """The static files, and Swagger UI at /docs; they are also served where the console is turned off."""
    routes = APIRouter(include_in_schema=False)
    page = _DOCS.format(
        icon=files.url("icon.svg"),
        style=files.url("vendor/swagger-ui-dist/swagger-ui.css"),
        bundle=files.url("vendor/swagger-ui-dist/swagger-ui-bundle.js"),
        script=files.url("docs.js"),
    )

    @routes.get("/docs")
    async def docs() -> Response:
        """The API in a browser."""
        return Response(page, media_type="text/html; charset=utf-8")

    @routes.get("/console/static/{digest}/{name:path}")
    async def static_file(request: Request, digest: str, name: str) -> Response:
        """A file of the console."""
        return await files.response(request, digest, name)

    return routes
