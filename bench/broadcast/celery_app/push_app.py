"""The Celery application: one push a task, with one requests session a process. Runs in a venv of its own.

The environment says where Redis and the sink are.
"""

import json
import os
import threading
import time

import requests
from celery import Celery

REDIS = os.environ["BENCH_REDIS"]
URL = os.environ["BENCH_URL"]
PROJECT = os.environ["BENCH_PROJECT"]
EXPIRES_AT = int(os.environ["BENCH_EXPIRES_AT"])
CONNECTIONS = int(os.environ["BENCH_CONNECTIONS"])

app = Celery("push_app", broker=REDIS)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_default_queue="push",
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    broker_connection_retry_on_startup=True,
)

_session: requests.Session | None = None
_making = threading.Lock()


def session() -> requests.Session:
    global _session  # noqa: PLW0603 - one a process, made after the fork
    with _making:
        if _session is None:
            made = requests.Session()
            made.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=CONNECTIONS))
            made.trust_env = False
            granted = made.post(f"{URL}/token", data={"grant_type": "jwt-bearer"}, timeout=20).json()
            made.headers.update(
                {
                    "Authorization": f"Bearer {granted['access_token']}",
                    "Accept-Encoding": "identity",
                    "Content-Type": "application/json",
                }
            )
            _session = made
        return _session


@app.task(
    autoretry_for=(requests.ConnectionError, requests.Timeout, requests.HTTPError),
    retry_backoff=1,
    max_retries=2,
)
def push(token: str, tag: str, title: str, body: str) -> None:
    life = str(int(EXPIRES_AT - time.time()))
    message = {
        "token": token,
        "notification": {"title": title, "body": body},
        "data": {},
        "android": {"priority": "normal", "ttl": f"{life}s", "notification": {"tag": tag}},
        "apns": {"headers": {"apns-collapse-id": tag, "apns-expiration": str(EXPIRES_AT)}},
        "webpush": {"headers": {"TTL": life}, "notification": {"tag": tag}},
    }
    payload = json.dumps({"message": message}, separators=(",", ":")).encode()
    answer = session().post(f"{URL}/v1/projects/{PROJECT}/messages:send", data=payload, timeout=20)
    answer.raise_for_status()
    answer.json()["name"]
