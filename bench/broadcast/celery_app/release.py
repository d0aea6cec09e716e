"""Makes idle workers take the pushes: `ready` when all of them answer, releases with a line on standard input."""

import sys
import time

from push_app import app

workers = int(sys.argv[1])
for _ in range(60):
    if len(app.control.ping(timeout=1.0, limit=workers)) == workers:
        break
    time.sleep(0.2)
else:
    sys.exit("the workers do not answer")
print("ready", flush=True)
if sys.stdin.readline():
    app.control.add_consumer("push")
    sys.stdin.readline()
