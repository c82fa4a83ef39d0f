"""The stack behind `fleetbeat up`: broker, worker, archive, this host's agent and a fleet, each a process."""

from infra.local.options import UpOptions as UpOptions
from infra.local.up import run_up as run_up
