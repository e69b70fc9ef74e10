"""The SSE clients of PyPI, each used as its own documentation shows.

    python client.py NAME URL

prints one line of JSON for each event that the library dispatches: {"id", "event", "data"}. A library
without reconnection, or whose reconnection ends with an exception, is called in a loop with the last
id that the library reported.
"""

import asyncio
import json
import sys
import time
from datetime import timedelta

# How long a loop of ours waits before it reconnects, until the stream's `retry:` is known.
WAIT = 0.1


def show(id, event, data):
    line = {"id": id, "event": event or "message", "data": data}
    print(json.dumps(line), flush=True)


def failed(error):
    print(f"error {error!r}", file=sys.stderr, flush=True)


def httpx_sse(url):
    import httpx
    from httpx_sse import connect_sse

    last, wait = None, WAIT
    # By default httpx gives up after 5 s without a byte.
    with httpx.Client(timeout=None) as client:
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            try:
                with connect_sse(client, "GET", url, headers=headers) as source:
                    for event in source.iter_sse():
                        last = event.id or last
                        if event.retry is not None:
                            wait = event.retry / 1000
                        show(event.id, event.event, event.data)
            except (httpx.HTTPError, ValueError) as error:
                failed(error)
            time.sleep(wait)


def sseclient_py(url):
    import requests
    import sseclient

    last, wait = None, WAIT
    while True:
        headers = {"Accept": "text/event-stream"}
        if last:
            headers["Last-Event-ID"] = last
        try:
            response = requests.get(url, stream=True, headers=headers)
            response.raise_for_status()
            for event in sseclient.SSEClient(response).events():
                last = event.id or last
                show(last, event.event, event.data)
        except requests.RequestException as error:
            failed(error)
        time.sleep(wait)


def requests_sse(url):
    import requests
    from requests_sse import EventSource

    last = None
    while True:
        try:
            wait = timedelta(seconds=WAIT)
            with EventSource(url, reconnection_time=wait, latest_event_id=last) as source:
                for event in source:
                    last = event.last_event_id or last
                    show(event.last_event_id, event.type, event.data)
        except requests.RequestException as error:
            failed(error)
        time.sleep(WAIT)


async def aiohttp_sse_client2(url):
    import aiohttp
    from aiohttp_sse_client2 import client

    last = None
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        try:
            wait = timedelta(seconds=WAIT)
            async with client.EventSource(url, reconnection_time=wait, headers=headers) as source:
                async for event in source:
                    last = event.last_event_id or last
                    show(event.last_event_id, event.type, event.data)
        except (aiohttp.ClientError, ConnectionError) as error:
            failed(error)
        await asyncio.sleep(WAIT)


name, url = sys.argv[1:]
match name:
    case "httpx-sse":
        httpx_sse(url)
    case "sseclient-py":
        sseclient_py(url)
    case "requests-sse":
        requests_sse(url)
    case "aiohttp-sse-client2":
        asyncio.run(aiohttp_sse_client2(url))
    case _:
        sys.exit(f"no client {name}")
