"""SQLite on the mount: locks, shared memory (WAL), and its own integrity check."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.system.real_input.programs import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.system,
    pytest.mark.mount,
    pytest.mark.real_input,
    pytest.mark.timeout(1200),
]

WRITER = """
import sqlite3, sys
path, mode, name = sys.argv[1:]
db = sqlite3.connect(path, timeout=120, isolation_level=None)
db.execute("PRAGMA journal_mode=" + mode)
for i in range(120):
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE account SET balance = balance - 1 WHERE name = 'a'")
    db.execute("INSERT INTO entry(writer, n, pad) VALUES (?, ?, randomblob(300))", (name, i))
    db.execute("UPDATE account SET balance = balance + 1 WHERE name = 'b'")
    db.execute("COMMIT")
"""


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate"])
def test_two_processes_write_one_database(work: Path, python: str, mode: str) -> None:
    path = work / "bank.db"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0] == mode
        db.execute("CREATE TABLE account(name TEXT PRIMARY KEY, balance INTEGER)")
        db.execute("CREATE TABLE entry(writer TEXT, n INTEGER, pad BLOB, PRIMARY KEY(writer, n))")
        db.execute("INSERT INTO account VALUES ('a', 1000), ('b', 0)")
        db.commit()
    both = f'"{python}" -c "$SCRIPT" "{path}" {mode} one & first=$!; '
    both += f'"{python}" -c "$SCRIPT" "{path}" {mode} two && wait $first'
    run("bash", "-c", both, env={"SCRIPT": WRITER})
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM entry").fetchone() == (240,)
        balances = dict(db.execute("SELECT name, balance FROM account"))
    assert balances == {"a": 760, "b": 240}
