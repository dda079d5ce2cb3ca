"""``python -m fuse_client CONFIG.toml``: mount until SIGTERM or until somebody unmounts."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from fireflyfs import config, log, process
from fuse_client.mount import serve


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m fuse_client CONFIG.toml\n")
        return process.EXIT_CONFIG
    return process.run(partial(_run, arguments[0]))


async def _run(path: str) -> None:
    settings = config.load(path, config.MountConfig)
    log.setup("mount", Path(settings.log_file) if settings.log_file else None)
    await serve(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
