"""Enqueues the pushes over one connection. Argument: the order as JSON."""

import json
import sys
from uuid import uuid4

from push_app import app, push

order = json.loads(sys.argv[1])
with app.producer_pool.acquire(block=True) as producer:
    for number in range(order["tokens"]):
        token = f"{number:011d}:APA91b".ljust(order["tokenCharacters"], "x")
        push.apply_async((token, str(uuid4()), order["title"], order["body"]), producer=producer)
