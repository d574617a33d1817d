"""HTTP requests without TLS, each on a new connection.

httpx creates a TLS context for each request that is sent without one, and reads all certificates of its bundle into it.
That takes 40 ms of CPU time, so these functions share one empty context. A response may take as long as on a machine
that is busy with other work.
"""

import ssl
from functools import partial

import httpx

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without certificates
TIMEOUT_S = 60

request = partial(httpx.request, verify=CONTEXT, timeout=TIMEOUT_S)
get = partial(httpx.get, verify=CONTEXT, timeout=TIMEOUT_S)
head = partial(httpx.head, verify=CONTEXT, timeout=TIMEOUT_S)
post = partial(httpx.post, verify=CONTEXT, timeout=TIMEOUT_S)
put = partial(httpx.put, verify=CONTEXT, timeout=TIMEOUT_S)
delete = partial(httpx.delete, verify=CONTEXT, timeout=TIMEOUT_S)
stream = partial(httpx.stream, verify=CONTEXT, timeout=TIMEOUT_S)
Client = partial(httpx.Client, verify=CONTEXT, timeout=TIMEOUT_S)
AsyncClient = partial(httpx.AsyncClient, verify=CONTEXT, timeout=TIMEOUT_S)
