"""HTTP requests without TLS, each on a new connection.

httpx creates a TLS context for each request that is sent without one, and reads all certificates of its bundle into it.
That takes 40 ms of CPU time, so these functions share one empty context.
"""

import ssl
from functools import partial

import httpx

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without certificates

request = partial(httpx.request, verify=CONTEXT)
get = partial(httpx.get, verify=CONTEXT)
head = partial(httpx.head, verify=CONTEXT)
post = partial(httpx.post, verify=CONTEXT)
put = partial(httpx.put, verify=CONTEXT)
delete = partial(httpx.delete, verify=CONTEXT)
stream = partial(httpx.stream, verify=CONTEXT)
Client = partial(httpx.Client, verify=CONTEXT)
AsyncClient = partial(httpx.AsyncClient, verify=CONTEXT)
