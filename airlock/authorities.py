"""The certificate authorities that an HTTP client trusts."""

from __future__ import annotations

import ssl
from functools import cache


@cache
def authorities(*, of_the_environment: bool = False) -> ssl.SSLContext:
    """Those of httpx, read once: each client that reads them by itself takes 20 ms of CPU.

    of_the_environment: those that SSL_CERT_FILE or SSL_CERT_DIR name, where they are set.
    """
    import httpx

    return httpx.create_ssl_context(trust_env=of_the_environment)
