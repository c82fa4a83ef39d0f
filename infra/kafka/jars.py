"""`python -m infra.kafka.jars`: fetches Kafka's jars ahead of time, so that the first start need not."""

import sys

from infra import InfraError
from infra.kafka.cache import ensure_jars
from infra.kafka.java import find_java


def main() -> int:
    """Fetches the jars and prints their folder; exit status 1 with a sentence when that cannot be."""
    try:
        find_java()
        print(ensure_jars(lambda line: print(line, file=sys.stderr, flush=True)))
    except InfraError as cause:
        print(f"fleetbeat: {cause}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
