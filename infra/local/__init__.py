"""The stack behind `fleetbeat up`: broker, worker, archive and a simulated fleet as processes on this machine."""

from infra.local.options import UpOptions as UpOptions
from infra.local.up import run_up as run_up
