"""Passwords as they are kept: scrypt over salt of their own, one line each."""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from typing import Self

MAX_BYTES = 1_024
_KIND = "scrypt"
_COST, _BLOCK, _LANES = 14, 8, 1  # 2^14 rounds over 16 MB, about 50 ms: as RFC 7914 has it for logins
_MAX_COST = 17  # 128 MB; more would let a file stop the archive
_SALT_BYTES, _HASH_BYTES = 16, 32


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A password as scrypt keeps it: `scrypt$COST$BLOCK$LANES$SALT$HASH`, cost as power of two, both in base64."""

    cost: int
    block: int
    lanes: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: str) -> Self:
        """A new one, with salt of its own."""
        empty = cls(_COST, _BLOCK, _LANES, secrets.token_bytes(_SALT_BYTES), b"")
        return replace(empty, digest=empty._derive(password))

    @classmethod
    def parse(cls, text: object) -> Self:
        """Raises ValueError; its message does not show the text."""
        try:
            kind, cost, block, lanes, salt, digest = str(text).split("$")
            found = cls(int(cost), int(block), int(lanes), _decode(salt), _decode(digest))
        except (ValueError, binascii.Error):
            kind, found = "", cls(0, 0, 0, b"", b"")
        if (
            kind != _KIND
            or not _COST <= found.cost <= _MAX_COST
            or (found.block, found.lanes) != (_BLOCK, _LANES)
            or len(found.salt) < _SALT_BYTES
            or len(found.digest) != _HASH_BYTES
        ):
            raise ValueError("not a password's hash; expected what `fleetbeat sql passwd NAME` makes")
        return found

    def fits(self, password: str) -> bool:
        """Whether it is of this password; takes as long when it is not.

        Zero bytes at the end are nothing to HMAC, on which scrypt is built: they never fit.
        """
        return hmac.compare_digest(self.digest, self._derive(password)) and "\0" not in password

    def __str__(self) -> str:
        """As it stands in the file."""
        salt, digest = (base64.b64encode(part).decode() for part in (self.salt, self.digest))
        return f"{_KIND}${self.cost}${self.block}${self.lanes}${salt}${digest}"

    def _derive(self, password: str) -> bytes:
        rounds = 1 << self.cost
        return hashlib.scrypt(
            password.encode(),
            salt=self.salt,
            n=rounds,
            r=self.block,
            p=self.lanes,
            maxmem=256 * rounds * self.block,
            dklen=_HASH_BYTES,
        )


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
