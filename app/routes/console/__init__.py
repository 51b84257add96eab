"""/console: the pages for those who run the gateway. HTML, and so no part of the API's description."""

from fastapi import APIRouter

from app.routes.console import actions, files, pages

__all__ = ["router"]

router = APIRouter(include_in_schema=False)
for part in (files, actions, pages):  # `/calibrations/{id}` comes last
    router.include_router(part.router, prefix="/console")
