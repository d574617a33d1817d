"""Requests of tests, each on a connection of its own, without TLS.

httpx reads all certificates of its bundle into a new TLS context for each request that brings none: 40 ms of CPU.
"""

import ssl
from functools import partial

import httpx

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody

request = partial(httpx.request, verify=CONTEXT)
get = partial(httpx.get, verify=CONTEXT)
head = partial(httpx.head, verify=CONTEXT)
post = partial(httpx.post, verify=CONTEXT)
put = partial(httpx.put, verify=CONTEXT)
delete = partial(httpx.delete, verify=CONTEXT)
stream = partial(httpx.stream, verify=CONTEXT)
Client = partial(httpx.Client, verify=CONTEXT)
AsyncClient = partial(httpx.AsyncClient, verify=CONTEXT)
