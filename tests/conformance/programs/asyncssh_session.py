# SPDX-License-Identifier: MIT
"""asyncssh: a server, a client, a command with its output, and a forwarded port."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh  # type: ignore[import-not-found]

from tests.conformance.programs.common import HOST, run


class _Server(asyncssh.SSHServer):  # type: ignore[misc]
    def begin_auth(self, _username: str) -> bool:
        return False

    def connection_requested(self, *_args: Any) -> bool:
        return True


async def _process(process: Any) -> None:
    process.stdout.write(f"{process.command} said {await process.stdin.read()}")
    process.exit(3)


async def _forwarded(client: Any) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    target = await asyncio.start_server(echo, HOST, 0)
    listener = await client.forward_local_port("", 0, HOST, target.sockets[0].getsockname()[1])
    reader, writer = await asyncio.open_connection(HOST, listener.get_port())
    data = bytes(range(256)) * 4096
    writer.write(data)
    writer.write_eof()
    assert data == await reader.read()
    writer.close()
    listener.close()
    target.close()


async def main() -> None:
    server = await asyncssh.create_server(
        _Server,
        HOST,
        0,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        process_factory=_process,
    )
    async with asyncssh.connect(HOST, server.get_port(), known_hosts=None) as client:
        result = await client.run("tea", input="with milk")
        assert ("tea said with milk", 3) == (result.stdout, result.exit_status), result
        await _forwarded(client)
    server.close()
    await server.wait_closed()


if __name__ == "__main__":
    run(main())
