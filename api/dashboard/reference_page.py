"""What the API can do, told from its own OpenAPI document."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.dashboard.render import page
from api.dashboard.visitor import Guest

router = APIRouter()


@router.get("/docs")
def get(request: Request, guest: Guest) -> HTMLResponse:
    """For anybody, as ``/openapi.json`` is."""
    document = request.app.openapi()
    groups: dict[str, list[dict[str, object]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            group = groups.setdefault(operation.get("tags", ["other"])[0], [])
            group.append({"method": method.upper(), "path": path, "operation": operation})
    return page(request, "reference.html", visitor=guest, document=document, groups=groups)
