"""`smtpd queue flush|hold|release|requeue|delete|summary|suspend|resume` beside a running worker or none."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from queue_desk import Desk, fill
from queue_rig import deferred, envelope_of, put, put_all

both = pytest.mark.parametrize("is_running", [True, False])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    place = Desk(tmp_path)
    yield place
    place.rig.close()


def open_or_close(desk: Desk, is_running: bool) -> None:
    if is_running:
        desk.rig.serve()
    else:
        desk.rig.close()


def states(desk: Desk) -> dict[str, str]:
    return {mail["queue_id"]: mail["queue_name"] for mail in desk.list_json()}


@both
def test_hold_release_and_requeue_by_id(desk: Desk, is_running: bool) -> None:
    first, second, _ = fill(desk)
    open_or_close(desk, is_running)
    answer = desk.run_json("hold", first)
    assert (answer["changed"], answer["changed_ids"], answer["unchanged"]) == (1, [first], [])
    assert states(desk)[first] == "hold"
    assert desk.run_json("hold", first)["unchanged"] == [first]
    done = desk.run("release", first, second)
    assert (done.exit_code, done.stdout) == (0, "2 mails released\n")
    [mail] = desk.list_json("--domain", "example.org")
    assert mail["queue_name"] == "deferred"
    assert abs(mail["next_attempt_time"] - time.time()) < 60
    assert desk.run_json("requeue", second)["changed"] == 1
    assert desk.list_json("--domain", ".example.net")[0]["queue_name"] == "active"


@both
def test_ids_that_are_not_there_are_named(desk: Desk, is_running: bool) -> None:
    first, _, _ = fill(desk)
    open_or_close(desk, is_running)
    answer = desk.run_json("delete", first, "nosuch", code=65)
    assert (answer["changed_ids"], answer["not_found"]) == ([first], ["nosuch"])
    done = desk.run("delete", first)
    assert (done.exit_code, done.stdout) == (65, "0 mails deleted\n")
    assert done.stderr == f"smtpd: {first} is not in the queue\n"
    assert first not in states(desk)


@both
def test_changes_by_filter(desk: Desk, is_running: bool) -> None:
    first, second, _ = fill(desk)
    open_or_close(desk, is_running)
    assert desk.run_json("flush", "--domain", "example.org")["changed_ids"] == [first]
    assert desk.run_json("hold", "--older", "1 h")["changed_ids"] == [first]
    assert desk.run_json("release", "--state", "held", "--reason", "expired")["changed_ids"] == [second]
    assert desk.run_json("delete", "--sender", "nobody@example.com", "--yes")["changed"] == 0


def test_what_was_not_named_is_not_changed_by_mistake(desk: Desk) -> None:
    fill(desk)
    desk.rig.close()
    before = states(desk)
    for arguments in (
        ("delete",), ("delete", "--all"), ("delete", "--domain", "example.org"), ("hold",), ("release",), ("requeue",),
        ("delete", "--all", "--yes", "--domain", "example.org"), ("hold", "--all", "x"),
    ):  # fmt: skip
        assert desk.run(*arguments).exit_code == 64, arguments
    assert states(desk) == before
    assert desk.run("delete", "--all", "--yes").stdout == "3 mails deleted\n"
    assert states(desk) == {}


@both
def test_many_mails_in_pages(desk: Desk, is_running: bool) -> None:
    items = put_all(desk.rig, [envelope_of(b"s@example.com", b"a@example.org")] * 1200)
    for item in items:
        desk.rig.spool.settle(item, [deferred()], 4e9, False, lambda error: None)
    desk.rig.wait_for_thread()
    open_or_close(desk, is_running)
    ids = [item.queue_id for item in items]
    answer = desk.run_json("hold", *ids, "nosuch", code=65)
    assert answer["changed_ids"] == ids
    assert desk.run_json("delete", "--all", "--yes")["changed"] == 1200


def test_mail_that_nobody_answers_for_is_in_use(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from smtpd.control import changing

    monkeypatch.setattr(changing, "_TRIES_MAX", 2)
    _, _, third = fill(desk)
    desk.rig.serve()
    answer = desk.run_json("delete", third, code=75)
    assert (answer["changed"], answer["busy"]) == (0, [third])


def test_mail_under_way_is_told_as_such(desk: Desk) -> None:
    class Busy:
        """Delivers everything."""

        def wish(self, queue_ids: list[str], action: str) -> set[str]:
            wishes.append((queue_ids, action))
            return set(queue_ids)

        def changed(self, shard: object, changes: object) -> None:
            pass

    wishes: list[tuple[list[str], str]] = []
    desk.rig.control.leases = Busy()  # type: ignore[assignment]
    _, _, third = fill(desk)
    desk.rig.serve()
    done = desk.run("delete", third)
    assert (done.exit_code, done.stdout) == (0, "0 mails deleted\n")
    assert f"{third} is being delivered now: it is NOT deleted yet" in done.stderr
    assert wishes == [([third], "delete")]


def test_a_settlement_on_its_way_is_waited_for(desk: Desk) -> None:
    class Late:
        """Was just settling."""

        def wish(self, queue_ids: list[str], action: str) -> set[str]:
            if not asked:
                asked.append(action)
                desk.rig.spool.settle(item, [deferred()], 4e9, False, lambda error: None)
            return set()

        def changed(self, shard: object, changes: object) -> None:
            pass

    asked: list[str] = []
    item = put(desk.rig, envelope_of(b"s@example.com", b"a@example.org"))
    desk.rig.control.leases = Late()  # type: ignore[assignment]
    desk.rig.loop.at_turn_end(desk.rig.spool.end_turn)
    desk.rig.serve()
    assert desk.run_json("hold", item.queue_id)["changed_ids"] == [item.queue_id]
    assert asked == ["hold"]
    assert states(desk) == {item.queue_id: "hold"}


@both
def test_show_with_header_and_body(desk: Desk, is_running: bool) -> None:
    text = b"Subject: \x1b[2Jhello\r\nTo: a@example.org\r\n\r\nfirst\r\n\r\nlast\xff\r\n"
    small = put(desk.rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()], body=text)
    desk.rig.spool.spill_at_bytes = 1000
    large = put(desk.rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()], body=text + b"x" * 500_000 + b"\r\n")
    open_or_close(desk, is_running)
    assert desk.run("show", "--headers", "--body", small.queue_id).stdout_bytes == text
    assert desk.run("show", "--body", small.queue_id).stdout_bytes == b"first\r\n\r\nlast\xff\r\n"
    assert desk.run("show", "--headers", large.queue_id).stdout_bytes == text.partition(b"\r\n\r\n")[0] + b"\r\n"
    whole = desk.run("show", "--headers", "--body", large.queue_id).stdout_bytes
    assert whole == text + b"x" * 500_000 + b"\r\n"
    for_people = desk.run("show", small.queue_id).stdout
    assert "\nSubject: \\x1b[2Jhello\nTo: a@example.org\n" in for_people
    assert "first" not in for_people
    shown = desk.run_json("show", "--headers", "--body", small.queue_id)
    assert shown["headers"] == "Subject: \x1b[2Jhello\r\nTo: a@example.org"
    assert shown["body"] == "first\r\n\r\nlast\\xff\r\n"
    assert "headers" not in desk.run_json("show", small.queue_id)


@both
def test_a_summary_by_domain_and_age(desk: Desk, is_running: bool) -> None:
    fill(desk)
    put_all(desk.rig, [envelope_of(b"x@sender.example", b"a@example.org", b"b@example.com")] * 3)
    open_or_close(desk, is_running)
    answer = desk.run_json("summary")
    assert answer["domains"] == 4
    top = {row["domain"]: row for row in answer["top"]}
    assert top["example.org"]["messages"] == 4
    assert top["example.org"]["by_age"] == [3, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert [row["domain"] for row in desk.run_json("summary", "--by", "sender")["top"]] == [
        "sender.example", "example.com", "MAILER-DAEMON",
    ]  # fmt: skip
    lines = desk.run("summary", "--top", "2").stdout.splitlines()
    assert lines[0].split() == ["T", "5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+"]
    assert lines[1].split() == ["TOTAL", "9", "8", "0", "0", "0", "0", "1", "0", "0", "0", "0"]
    assert lines[2].split()[:2] == ["example.org", "4"]
    assert lines[-1] == "-- and 2 more"
    assert desk.run_json("summary", "--state", "held")["domains"] == 1


# --- routes ----------------------------------------------------------------------------------------------------------


@both
def test_suspend_and_resume_a_route(desk: Desk, is_running: bool) -> None:
    from smtpd.control.routes import Routes

    class Lane:
        name = "discard-1"
        is_suspended = False

    lane = Lane()
    desk.rig.control.routes = Routes(desk.rig.path, [lane])
    item = put(
        desk.rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred("deliveries by route discard-1 are suspended")]
    )
    put(desk.rig, envelope_of(b"s@example.com", b"a@example.org"), [deferred()])
    open_or_close(desk, is_running)
    assert desk.run("suspend", "discard-1").stdout == "route discard-1 is suspended\n"
    assert lane.is_suspended == is_running
    assert "-- route discard-1 is suspended" in desk.run("list").stdout
    assert desk.list_json("--totals")[0]["suspended_routes"] == ["discard-1"]
    again = Lane()
    Routes(desk.rig.path, [again]).load()  # another worker, or the next one
    assert again.is_suspended
    assert desk.run_json("resume", "discard-1") == {"route": "discard-1", "suspended": False, "due": 1}
    assert not lane.is_suspended
    [mail] = desk.list_json("--reason", "suspended")
    assert mail["queue_id"] == item.queue_id
    assert abs(mail["next_attempt_time"] - time.time()) < 60
    assert "suspended" not in desk.run("list", "--totals").stdout
    assert desk.run("suspend", "nowhere").exit_code == 65


def test_a_file_of_suspensions_that_makes_no_sense_suspends_nothing_and_is_told(desk: Desk) -> None:
    (Path(desk.rig.path) / "suspended").write_text("[]")
    desk.rig.close()
    done = desk.run("list")
    assert done.exit_code == 75
    assert "suspended" in done.stderr
    assert json.loads(desk.run("list", "--totals", "--json").stdout)["messages"] == 0
