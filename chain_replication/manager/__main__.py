"""``python -m chain_replication.manager CONFIG``: the cluster manager, in the foreground."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from chain_replication.manager.service import serve
from fireflyfs import log, process
from fireflyfs.config import ManagerConfig, load


async def _main(path: Path) -> None:
    config = load(path, ManagerConfig)
    log.setup("manager", Path(config.log_file) if config.log_file else None)
    await serve(config)


def main() -> int:
    parser = argparse.ArgumentParser(prog="chain_replication.manager", description=__doc__)
    parser.add_argument("config", type=Path, help="TOML file, see fireflyfs.config.ManagerConfig")
    return process.run(partial(_main, parser.parse_args().config))


if __name__ == "__main__":
    sys.exit(main())
