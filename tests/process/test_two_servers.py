"""Two servers that were given one spool: each takes shards of its own, never both one."""

import smtplib
from collections import Counter
from pathlib import Path

from gateway import Gateway

MAILS = 10


def send(gateway: Gateway, user: str) -> None:
    with smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=30) as smtp:
        for number in range(MAILS):
            smtp.sendmail("a@example.com", [f"{user}@example.org"], f"Subject: {number}\r\n\r\nx\r\n".encode())


def owners(spool: Path) -> dict[str, int]:
    """shard -> pid in its lock file."""
    texts = {lock.parent.name: lock.read_text().strip() for lock in spool.glob("shards/*/lock")}
    return {shard: int(text) for shard, text in texts.items() if text}


def test_both_take_mail_and_never_one_shard_together(tmp_path: Path) -> None:
    one = Gateway(tmp_path / "one")
    two = Gateway(tmp_path / "two", {"spool": {"path": str(one.spool)}})
    two.settings["route"][0]["path"] = str(one.mail)
    two.write_config()
    try:
        one.start()
        two.start()
        send(one, "first")
        send(two, "second")
        one.await_mails("first", MAILS)
        one.await_mails("second", MAILS)
        workers = one.worker_pids() + two.worker_pids()
        holders = [pid for pid in owners(one.spool).values() if pid in workers]
        assert sorted(holders) == sorted(workers)  # a shard for each, none twice
        assert max(Counter(holders).values()) == 1
        assert two.stop() == 0
        send(one, "third")
        one.await_mails("third", MAILS)
        assert one.stop() == 0
    finally:
        for gateway in (one, two):
            if gateway.process is not None:
                gateway.kill()
