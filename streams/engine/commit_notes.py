"""What is written beside a committed offset: the processor's own words, and which topics the offset speaks of.

Words `name=value` are the engine's, and what a reader does not know it passes over: a later version may add some.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Note:
    """`topic`: the id of the committed topic; `into`: of the one that what was read went into; empty when not known."""

    text: str = ""
    topic: str = ""
    into: str = ""
    partitions: int = 0

    @property
    def number(self) -> int:
        """The processor's words as one number; 0 when they are none."""
        return int(self.text) if self.text.isdecimal() else 0

    def write(self) -> str:
        """The metadata of a commit."""
        known = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "text"}
        return " ".join([self.text, *(f"{name}={value}" for name, value in known.items() if value)])

    @classmethod
    def read(cls, metadata: str) -> "Note":
        """Of any metadata, also of other tools' and of commits before there were such words."""
        words = metadata.split()
        known = dict(word.split("=", 1) for word in words if "=" in word)
        partitions = known.get("partitions", "")
        return cls(
            text=" ".join(word for word in words if "=" not in word),
            topic=known.get("topic", ""),
            into=known.get("into", ""),
            partitions=int(partitions) if partitions.isdecimal() else 0,
        )

    def contradicts(self, topic: str, into: str) -> str:
        """Why the offset beside it means nothing for topics of these ids; empty when it does, or may do."""
        if self.topic and topic and self.topic != topic:
            return f"the commit is of a topic of id {self.topic}, now it is {topic}"
        if self.into and into and self.into != into:
            return f"what was read went into a topic of id {self.into}, now it is {into}"
        return ""
