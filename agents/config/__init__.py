"""The agent's YAML file: what may stand in it, what it means, and the sentence for each mistake."""

from agents.config.file import (
    DEFAULT_TIMEOUT_S,
    AgentConfig,
    AgentFile,
    HeartbeatFile,
    KafkaFile,
    MetricsFile,
    NodeFile,
    ProbeFile,
    ProbeSpec,
    SpoolFile,
)
from agents.config.load import NODE_ID, build_agent, load_agent, whole_model

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "NODE_ID",
    "AgentConfig",
    "AgentFile",
    "HeartbeatFile",
    "KafkaFile",
    "MetricsFile",
    "NodeFile",
    "ProbeFile",
    "ProbeSpec",
    "SpoolFile",
    "build_agent",
    "load_agent",
    "whole_model",
]
