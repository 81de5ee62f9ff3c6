"""The routes of whoever administers, and their pages."""

from fastapi import FastAPI

from app.administration.audit import AuditLog
from app.web.admin.routes import PageParts, admin_router
from app.web.api.access import access_router
from app.web.api.route import use_visitors
from app.web.visitors import Visitors


def add_api(app: FastAPI, visitors: Visitors, audit: AuditLog) -> None:
    """Add every route of `/api/v1`, and every page of `/admin`."""
    use_visitors(app, visitors)
    app.include_router(access_router(audit))
    app.include_router(admin_router(PageParts(visitors, audit)))
