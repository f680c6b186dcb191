"""Serves all files over SFTP with asyncssh, for the tests: PORT HOST_KEY AUTHORIZED_KEY ROOT, which is for the others."""

import asyncio
import os
import sys

import asyncssh


async def main():
    port, host_key, authorized, _ = sys.argv[1:]
    os.umask(0)
    await asyncssh.listen(
        "127.0.0.1",
        int(port),
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        sftp_factory=True,
    )
    await asyncio.get_running_loop().create_future()


asyncio.run(main())
