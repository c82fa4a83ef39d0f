"""Whether a worker will be able to listen, before it says anything to the others."""

import asyncio

from schemas.listen import ListenAddress
from streams.options import CannotStartError


async def require_free(listen: ListenAddress) -> None:
    """Raises CannotStartError.

    A worker announces its objectives before it has views: one that cannot start, because the address is that of a
    worker that runs, would have changed what that one judges by.
    """
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, listen.host, listen.port)
    except OSError as error:
        raise CannotStartError(f"--listen {listen}: {error.strerror or error}") from error
    server.close()
    await server.wait_closed()
