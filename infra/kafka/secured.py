"""`python -m infra.kafka.secured FOLDER`: a broker with TLS, users and ACLs on this machine, to try them on."""

import signal
import sys
import threading
from pathlib import Path

from infra import InfraError
from infra.kafka.broker import LocalKafka
from infra.kafka.listeners import ADMIN, SecuredListeners

USERS = ("collector", "worker", "archive")


def main(arguments: list[str]) -> int:
    """Runs until Ctrl-C or SIGTERM; exit status 1 with a sentence when the broker cannot start."""
    if len(arguments) != 1:
        print("usage: python -m infra.kafka.secured FOLDER", file=sys.stderr)
        return 2
    listeners = SecuredListeners(USERS)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with LocalKafka(Path(arguments[0]), listeners=listeners, progress=print) as broker:
            print(f"users at {broker.bootstrap}, certificates at {listeners.certificates}; for --kafka-config:")
            for user in (ADMIN, *USERS):
                print(f"  {listeners.kafka_config(user, brokers=broker.bootstrap)}")
            print(f"  {listeners.certificate_config(USERS[0])}", flush=True)
            stop.wait()
    except InfraError as cause:
        print(f"fleetbeat: {cause}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
