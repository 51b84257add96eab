"""GET /docs: Swagger UI from an installed package, so that the page loads nothing from anywhere else."""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

from app.errors import NotFound
from app.headers import NO_FRAMES
from app.routes.dependencies import problems

router = APIRouter(include_in_schema=False)

START = """\
window.onload = () => SwaggerUIBundle({
  url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null,
});
"""
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Triggerwall: the API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "start.js": "text/javascript",
}
# Swagger UI writes style attributes and draws its icons from data: URLs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    f"connect-src 'self'; base-uri 'none'; form-action 'none'; {NO_FRAMES}"
)


@router.get("/docs")
async def page() -> Response:
    return Response(PAGE, media_type="text/html", headers={"Content-Security-Policy": POLICY})


@router.get("/docs/{name}", responses=problems(404))
def asset(name: str) -> Response:
    if name not in ASSETS:
        raise NotFound("there is no such file")
    return Response(_content(name), media_type=ASSETS[name], headers={"Cache-Control": "max-age=86400"})


@cache
def _content(name: str) -> bytes:
    return START.encode() if name == "start.js" else (files("fastapi_offline") / "static" / name).read_bytes()
