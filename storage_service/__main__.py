"""``python -m storage_service CONFIG``: one storage node, in the foreground."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from fireflyfs import log, process
from fireflyfs.config import StorageConfig, load
from storage_service.service import serve


async def _main(path: Path) -> None:
    config = load(path, StorageConfig)
    log.setup(config.name, Path(config.log_file) if config.log_file else None)
    await serve(config)


def main() -> int:
    parser = argparse.ArgumentParser(prog="storage_service", description=__doc__)
    parser.add_argument("config", type=Path, help="TOML file, see fireflyfs.config.StorageConfig")
    return process.run(partial(_main, parser.parse_args().config))


if __name__ == "__main__":
    sys.exit(main())
