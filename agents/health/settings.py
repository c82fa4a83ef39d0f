"""What the YAML file may say about health."""

from pydantic import BaseModel, ConfigDict


class HealthFile(BaseModel):
    """How this host's health is read. `ebpf`: a program in the kernel counts connections, where it allows that."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    ebpf: bool = False
