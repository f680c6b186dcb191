"""Serves a directory over SFTP with asyncssh, for the tests: PORT HOST_KEY AUTHORIZED_KEY ROOT."""

import asyncio
import os
import sys

import asyncssh


class Files(asyncssh.SFTPServer):
    def __init__(self, channel):
        super().__init__(channel, chroot=sys.argv[4].encode())


async def main():
    port, host_key, authorized, _ = sys.argv[1:]
    os.umask(0)
    await asyncssh.listen(
        "127.0.0.1",
        int(port),
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        sftp_factory=Files,
    )
    await asyncio.get_running_loop().create_future()


asyncio.run(main())
