"""What the service answers."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, Field
from store import Store

log = logging.getLogger(__name__)

NO_ANSWER = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
)

Limit = Annotated[int, Query(ge=1, le=500)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Ticker = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9.-]*$", max_length=12)]
Price = Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=4)]
Status = Literal["rumoured", "announced", "pending", "completed", "terminated"]


class NewDeal(BaseModel):
    acquirer_name: Name
    target_name: Name
    target_ticker: Ticker | None = None
    status: Status = "announced"
    deal_value_usd: Annotated[Decimal, Field(gt=0, max_digits=16, decimal_places=2)] | None = None
    offer_price: Price | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    announced_on: date
    expected_close_on: date | None = None
    details: dict[str, Any] = {}
    source_id: UUID | None = None


class DealChange(BaseModel):
    """What may change about a deal; a field that is left out stays as it is."""

    status: Status | None = None
    offer_price: Price | None = None
    expected_close_on: date | None = None


class NewAlert(BaseModel):
    deal_id: UUID
    severity: Literal["info", "warning", "critical"] = "info"
    message: Annotated[str, Field(min_length=1, pattern=r"\S")]
    payload: dict[str, Any] = {}


class NewHalt(BaseModel):
    ticker: Ticker
    code: Annotated[str, Field(max_length=8)]
    halted_at: AwareDatetime
    resumed_at: AwareDatetime | None = None
    exchange: Annotated[str, Field(max_length=16)] | None = None
    note: str | None = None


router = APIRouter()


def store(request: Request) -> Store:
    return request.app.state.store


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    try:
        version = await store(request).schema_version()
    except (*NO_ANSWER, asyncpg.PostgresError) as error:
        reason = f"the database does not answer: {error or type(error).__name__}"
        log.warning("unhealthy: %s", reason)
        return JSONResponse({"status": "unhealthy", "reason": reason}, status_code=503)
    return JSONResponse(
        {
            "status": "ok",
            "release": request.app.state.release,
            "instance": request.app.state.instance,
            "pid": os.getpid(),
            "schema_version": version,
        }
    )


@router.get("/deals")
async def list_deals(request: Request, limit: Limit = 50) -> list[dict[str, Any]]:
    return await store(request).deals(limit)


@router.get("/deals/{key}")
async def read_deal(request: Request, key: UUID) -> dict[str, Any]:
    return found(await store(request).deal(key), f"There is no deal {key}.")


@router.post("/deals", status_code=201)
async def add_deal(request: Request, new: NewDeal) -> dict[str, Any]:
    return found(await store(request).add_deal(new.model_dump()), "The deal was not written.")


@router.patch("/deals/{key}")
async def change_deal(request: Request, key: UUID, change: DealChange) -> dict[str, Any]:
    changed = await store(request).change_deal(key, **change.model_dump())
    return found(changed, f"There is no deal {key}.")


@router.get("/alerts")
async def list_alerts(request: Request, limit: Limit = 50) -> list[dict[str, Any]]:
    return await store(request).alerts(limit)


@router.post("/alerts", status_code=201)
async def add_alert(request: Request, new: NewAlert) -> dict[str, Any]:
    return found(await store(request).add_alert(**new.model_dump()), "The alert was not written.")


@router.get("/halts")
async def list_halts(request: Request, limit: Limit = 50) -> list[dict[str, Any]]:
    return await store(request).halts(limit)


@router.post("/halts", status_code=201)
async def add_halt(request: Request, new: NewHalt) -> dict[str, Any]:
    return found(await store(request).add_halt(**new.model_dump()), "The halt was not written.")


def found(row: dict[str, Any] | None, otherwise: str) -> dict[str, Any]:
    if row is None:
        raise HTTPException(404, otherwise)
    return row


def _answer(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status)


async def _schema_too_old(request: Request, error: Exception) -> JSONResponse:
    """This code may run on a schema that does not have everything yet."""
    return _answer(409, f"The database's schema does not have this yet: {error.args[0]}.")


async def _not_acceptable(request: Request, error: Exception) -> JSONResponse:
    return _answer(422, str(error).replace("\nDETAIL:  ", ". "))


async def _no_answer(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s: %s", request.method, request.url.path, error or type(error).__name__)
    return _answer(503, "The database does not answer. Try again later.")


HANDLERS = {
    asyncpg.UndefinedTableError: _schema_too_old,
    asyncpg.UndefinedColumnError: _schema_too_old,
    asyncpg.UndefinedObjectError: _schema_too_old,
    asyncpg.IntegrityConstraintViolationError: _not_acceptable,
    asyncpg.DataError: _not_acceptable,
    **dict.fromkeys(NO_ANSWER, _no_answer),
}


def build(database_url: str, *, release: str, instance: str) -> FastAPI:
    """The application. It opens its pool when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.store = Store(database_url)
        await app.state.store.open()
        log.info("release %s serves", release)
        yield
        await app.state.store.close()

    app = FastAPI(title="M&A Tracker", lifespan=lifespan, exception_handlers=dict(HANDLERS))
    app.state.release = release
    app.state.instance = instance
    app.include_router(router)
    return app
