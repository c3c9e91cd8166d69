"""The outbox: what people must hear, put into the ledger first and delivered afterwards."""

from __future__ import annotations

import logging

from airlock import alert, ledger, record, settings
from airlock.alert import Alert

log = logging.getLogger(__name__)


async def deliver(target_name: str) -> tuple[Alert, ...]:
    """Send what the outbox of one target holds; what every channel has taken.

    An address that does not answer is tried again at the next call; it fails nothing.
    """
    target = settings.target(target_name)
    sent: list[Alert] = []
    async with ledger.connection(target) as conn:
        for queued in await ledger.undelivered(conn):
            error = await alert.deliver(target, queued.body)
            await ledger.record_delivery(conn, queued, "slack", error)
            if error is None:
                await ledger.close_alert(conn, queued)
                sent.append(record.load(Alert, queued.body))
            else:
                log.warning("Alert %s is not delivered yet: %s", queued.dedup_key, error)
    return tuple(sent)
