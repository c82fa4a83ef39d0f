"""The contract's topics on a cluster: what is missing or differs (`check`), and putting it right (`apply`)."""

from infra.topics.command import run_apply, run_check

__all__ = ["run_apply", "run_check"]
