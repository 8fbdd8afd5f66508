# SPDX-License-Identifier: Apache-2.0
"""The heartbeat's entry in a real etcd: there while the engine works, gone when it does not."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import wait_until
from heartbeats import SECTION, kill_everything, settings_for, texts
from http_stub import HttpStub
from plugins import HEARTBEAT
from servers import Server, debian_binary, free_port
from vllm_stub import VllmStub

from lmcache_plugin_adapter.kit.testing.trial import Trial

KEY = "/services/vllm/one"
TTL = 4
LONG = 600
"""A lease that outlives any test: what disappears was taken back."""
LATE = 2.0
"""What a busy machine may add to a promised time, in seconds."""

RunPlugin = Callable[..., Trial]


class Etcd(Server):
    """A member of its own, asked through its JSON gateway."""

    def __init__(
        self, data: Path, name: str = "default", members: dict[str, int] | None = None
    ) -> None:
        members = members or {name: free_port()}
        peers = {one: f"http://127.0.0.1:{port}" for one, port in members.items()}
        client = "http://127.0.0.1:{port}"
        command: list[str | Path] = [debian_binary("etcd-server", "etcd"), "--name", name]
        command += ["--data-dir", "{data}/db", "--unsafe-no-fsync", "--initial-cluster"]
        command += [",".join(f"{one}={url}" for one, url in peers.items())]
        for option, url in (("client", client), ("peer", peers[name])):
            command += [f"--listen-{option}-urls", url]
        command += ["--advertise-client-urls", client]
        command += ["--initial-advertise-peer-urls", peers[name]]
        super().__init__(command, data)
        self.token = ""

    def ask(self, path: str, **request: Any) -> dict[str, Any]:
        """Ask something that must succeed."""
        headers = {"Authorization": self.token} if self.token else {}
        answer = httpx.post(self.url + path, json=request, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def up(self) -> Etcd:
        """Start it and wait until it serves."""
        self.start()
        wait_until(lambda: _is_healthy(self), 60)
        return self

    def entry(self, key: str = KEY) -> dict[str, Any] | None:
        """Return what stands at a key: its value, read, and what etcd adds."""
        kvs = self.ask("/v3/kv/range", key=encode(key)).get("kvs")
        if not kvs:
            return None
        kvs[0]["value"] = json.loads(base64.b64decode(kvs[0]["value"]))
        found: dict[str, Any] = kvs[0]
        return found

    def leases(self) -> list[str]:
        """Return all leases."""
        return [one["ID"] for one in self.ask("/v3/lease/leases").get("leases", [])]

    def enable_auth(self) -> None:
        """Ask for names and passwords; ``engine`` may write below ``/services/vllm/`` only."""
        self.ask("/v3/auth/user/add", name="root", password="root's own")
        self.ask("/v3/auth/role/add", name="root")
        self.ask("/v3/auth/user/grant", user="root", role="root")
        self.ask("/v3/auth/user/add", name="engine", password="engine's own")
        self.ask("/v3/auth/role/add", name="engines")
        permission = {"permType": "READWRITE", "key": encode("/services/vllm/")}
        permission["range_end"] = encode("/services/vllm0")
        self.ask("/v3/auth/role/grant", name="engines", perm=permission)
        self.ask("/v3/auth/user/grant", user="engine", role="engines")
        self.ask("/v3/auth/enable")
        self.log_in()

    def log_in(self) -> None:
        """Be root from now on."""
        self.token = ""
        answer = self.ask("/v3/auth/authenticate", name="root", password="root's own")
        self.token = answer["token"]


def encode(text: str) -> str:
    """Return text as etcd's gateway has keys and values."""
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    """An etcd that is not started yet."""
    server = Etcd(tmp_path / "etcd")
    yield server
    server.stop()


@pytest.fixture
def vllm() -> Iterator[VllmStub]:
    """The HTTP server of vLLM."""
    with VllmStub() as vllm:
        yield vllm


@pytest.fixture
def start(run_plugin: RunPlugin, vllm: VllmStub, etcd: Etcd) -> RunPlugin:
    """Start the plugin with an entry in etcd; arguments are settings of that."""

    def start(more: dict[str, Any] | None = None, stop_grace: float = 5, **target: Any) -> Trial:
        settings = settings_for(vllm, etcd={"url": etcd.url, "ttl": TTL, **target}, **(more or {}))
        return run_plugin(HEARTBEAT, settings=settings, stop_grace=stop_grace)

    return start


def entered(etcd: Etcd, seconds: float = 20.0) -> dict[str, Any]:
    """Wait for the entry."""
    return wait_until(etcd.entry, seconds, "entry")


def another(etcd: Etcd, than: dict[str, Any]) -> dict[str, Any] | None:
    """Return the entry if it was made after another one."""
    entry = etcd.entry()
    fresh = entry is not None and entry["create_revision"] != than["create_revision"]
    return entry if fresh else None


def vanished(etcd: Etcd, seconds: float) -> float:
    """Wait until there is no entry; return how long that took."""
    begun = time.monotonic()
    wait_until(lambda: etcd.entry() is None, seconds, "no entry")
    return time.monotonic() - begun


def promised(plugin: Trial, state: str) -> tuple[float, float]:
    """Return in how many seconds the plugin says that an entry is gone."""
    line = plugin.wait_for(re.compile(f"^etcd: engine {state}: "))
    found = re.search(r"gone within (\d+) s \((\d+) s if it cannot be reached\)", line.text)
    assert found is not None, line
    return float(found[1]), float(found[2])


def test_a_working_engine_is_entered_kept_and_taken_back(
    start: RunPlugin, etcd: Etcd, vllm: VllmStub
) -> None:
    """Every field, one lease, longer than its time to live; SIGTERM ends it at once."""
    etcd.up()
    plugin = start(
        {"tags": ["h100", "prod"], "metadata": {"model": "m"}, "service": "vllm"}, interval=1.0
    )
    entry = entered(etcd)
    value = entry["value"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value.pop("registered"))
    assert value.pop("host")
    assert value == {
        "service": "vllm",
        "instance": "one",
        "address": "10.1.2.3",
        "port": vllm.port,
        "tags": ["h100", "prod"],
        "metadata": {"model": "m"},
        "role": "scheduler",
        "worker_id": -1,
        "worker_count": 1,
        "dp_rank": 0,
        "dp_size": 1,
        "engine_pid": plugin.engine.pid,
    }
    assert etcd.leases() == [entry["lease"]]
    answer = etcd.ask("/v3/lease/timetolive", ID=entry["lease"])
    assert answer["grantedTTL"] == str(TTL)
    end = time.monotonic() + TTL + 2
    while time.monotonic() < end:
        now = etcd.entry()
        assert now is not None
        assert now["mod_revision"] == entry["mod_revision"]
        time.sleep(0.1)
    assert plugin.stop() == 0
    assert etcd.entry() is None
    assert etcd.leases() == []
    assert plugin.wait_for("Deregistered from etcd").level == "info"
    assert not [line for line in plugin.lines if line.level in ("warning", "error")]


def test_an_engine_that_is_starting_is_not_entered(
    start: RunPlugin, etcd: Etcd, vllm: VllmStub
) -> None:
    """Its process is there long before it serves."""
    etcd.up()
    vllm.status = 503
    plugin = start()
    plugin.wait_for("The engine is starting: has not answered yet: GET ")
    wait_until(lambda: vllm.asked > 6, 30)
    assert etcd.entry() is None
    vllm.status = 200
    entered(etcd)
    assert plugin.wait_for("Registered in etcd")


def test_etcd_may_come_later(start: RunPlugin, etcd: Etcd) -> None:
    """The plugin waits for it, and says so once."""
    plugin = start()
    line = plugin.wait_for("Cannot keep the entry in etcd: ConnectError")
    assert line.level == "error"
    assert line.text.endswith("the engine is not registered; trying again")
    etcd.up()
    entered(etcd)
    plugin.wait_for("etcd has answered again, after")
    said = [line for line in plugin.lines if "Cannot keep" in line.text and line.level == "error"]
    assert len(said) == 1


def test_etcd_may_be_away_for_a_while(start: RunPlugin, etcd: Etcd) -> None:
    """Longer than the lease lives."""
    etcd.up()
    plugin = start()
    entered(etcd)
    etcd.stop()
    plugin.wait_for("the entry expires in ")
    plugin.wait_for("the entry has expired", TTL + 20)
    etcd.up()
    plugin.wait_for("etcd has answered again, after", 20)
    entered(etcd)
    assert plugin.stop() == 0
    assert etcd.entry() is None


def test_etcd_may_lose_its_data(start: RunPlugin, etcd: Etcd) -> None:
    """As one in a container without a volume does."""
    etcd.up()
    plugin = start()
    entered(etcd)
    etcd.forget()
    etcd.up()
    entered(etcd)
    assert plugin.wait_for("The lease is gone from etcd: registering again").level == "warning"


def test_a_revoked_lease_and_a_deleted_key_are_made_anew(start: RunPlugin, etcd: Etcd) -> None:
    """Somebody cleans up too thoroughly."""
    etcd.up()
    plugin = start()
    first = entered(etcd)
    etcd.ask("/v3/lease/revoke", ID=first["lease"])
    # It may be entered anew before anybody sees that it was gone.
    second = wait_until(lambda: another(etcd, first), 20, "an entry with another lease")
    assert second["lease"] != first["lease"]
    etcd.ask("/v3/kv/deleterange", key=encode(KEY))
    third = wait_until(lambda: another(etcd, second), 20, "an entry after the deleted one")
    assert third["lease"] == second["lease"]
    plugin.wait_for(f"Key '{KEY}' is gone from etcd: writing it again")
    assert plugin.stop() == 0
    assert etcd.entry() is None


def test_a_key_that_another_took_is_left_to_it(start: RunPlugin, etcd: Etcd) -> None:
    """Two engines with one key would come and go; the latest has it, and that is said."""
    etcd.up()
    plugin = start()
    entered(etcd)
    other = {"instance": "one", "address": "10.9.9.9", "port": 1, "host": "other"}
    etcd.ask("/v3/kv/put", key=encode(KEY), value=encode(json.dumps(other)))
    line = plugin.wait_for(
        f"Key '{KEY}' was taken over by another engine: 10.9.9.9:1 on host 'other'"
    )
    assert line.level == "error"
    assert (etcd.entry() or {})["value"] == other
    assert plugin.stop() == 0
    assert (etcd.entry() or {})["value"] == other
    assert etcd.leases() == []


def test_a_key_that_was_anothers_is_taken_with_a_warning(start: RunPlugin, etcd: Etcd) -> None:
    """And without one if it was this engine's own, from before the plugin was started again."""
    etcd.up()
    other = {"instance": "one", "address": "10.9.9.9", "port": 1, "host": "other"}
    etcd.ask("/v3/kv/put", key=encode(KEY), value=encode(json.dumps(other)))
    plugin = start()
    plugin.wait_for(f"Key '{KEY}' belonged to another engine: 10.9.9.9:1")
    kill_everything(plugin)
    again = start()
    again.wait_for("Registered in etcd")
    assert "of another engine" not in texts(again)


def test_a_slow_etcd_holds_up_nobody_else(
    run_plugin: RunPlugin, etcd: Etcd, vllm: VllmStub
) -> None:
    """Connections are accepted and never answered; the other target hears what it should."""
    etcd.up()
    with VllmStub() as pinged:
        target = {"url": etcd.url, "ttl": TTL}
        http = {"url": pinged.url + "/ping", "interval": 0.5}
        plugin = run_plugin(HEARTBEAT, settings=settings_for(vllm, etcd=target, http=http))
        entered(etcd)
        etcd.pause()
        plugin.wait_for("Cannot keep the entry in etcd: no answer in time; the entry expires in")
        asked, begun = pinged.asked, time.monotonic()
        wait_until(lambda: pinged.asked >= asked + 6, 20)
        # Held up by etcd, each would wait for its 1.3 s.
        assert time.monotonic() - begun < 6 * 0.5 + 3
        etcd.resume()
        plugin.wait_for("etcd has answered again")
        entered(etcd)


def test_sigterm_while_etcd_hangs_for_good_ends_in_time(start: RunPlugin, etcd: Etcd) -> None:
    """The entry is left to expire, and that is said."""
    etcd.up()
    plugin = start()
    entered(etcd)
    etcd.pause()
    plugin.wait_for("Cannot keep the entry in etcd: no answer in time")
    begun = time.monotonic()
    assert plugin.stop() == 0
    assert time.monotonic() - begun < 5 + LATE  # 0: it was not killed when its 5 s were over
    line = plugin.wait_for("Cannot deregister from etcd: no answer in time; the entry expires in")
    assert line.level == "warning"
    etcd.resume()
    vanished(etcd, TTL + 20)


def test_sigterm_in_the_middle_of_a_request_takes_the_entry_back(
    start: RunPlugin, etcd: Etcd
) -> None:
    """Etcd hangs when SIGTERM comes, and answers again within the grace period."""
    etcd.up()
    plugin = start(stop_grace=20, ttl=LONG, interval=0.2, timeout=0.5)
    entered(etcd)
    etcd.pause()
    plugin.engine.kill()
    wait_until(lambda: "Stopping 1 plugin" in plugin.log, 20)
    time.sleep(2)  # SIGTERM has come, and the first requests for the end had no answer
    etcd.resume()
    assert plugin.wait_exit(30) == 0
    assert etcd.entry() is None


def test_an_etcd_that_comes_back_in_the_grace_period_is_told(start: RunPlugin, etcd: Etcd) -> None:
    """The first requests for the end are refused."""
    etcd.up()
    plugin = start(stop_grace=30, ttl=LONG)
    entered(etcd)
    etcd.stop()
    plugin.engine.kill()
    wait_until(lambda: "Stopping 1 plugin" in plugin.log, 20)
    time.sleep(1)
    etcd.up()
    assert plugin.wait_exit(30) == 0
    assert etcd.entry() is None


def test_a_power_cut_lets_the_entry_expire(start: RunPlugin, etcd: Etcd) -> None:
    """Nobody is left to take it back."""
    etcd.up()
    plugin = start()
    entered(etcd)
    kill_everything(plugin)
    assert vanished(etcd, TTL + 1 + 2 + LATE) > 0.5


def test_a_plugin_that_was_held_up_itself_enters_the_engine_again(
    start: RunPlugin, etcd: Etcd
) -> None:
    """The whole host was paused, for instance; the engine was well all the while."""
    etcd.up()
    plugin = start()
    entered(etcd)
    assert plugin.pid is not None
    os.kill(plugin.pid, signal.SIGSTOP)
    vanished(etcd, TTL + 3 + LATE)
    os.kill(plugin.pid, signal.SIGCONT)
    entered(etcd)
    plugin.wait_for("The lease is gone from etcd: registering again")
    assert "Deregistered" not in texts(plugin)


def test_a_killed_engine_is_taken_back_in_the_grace_period(start: RunPlugin, etcd: Etcd) -> None:
    """Long before its lease ends."""
    etcd.up()
    plugin = start(ttl=LONG)
    entered(etcd)
    plugin.engine.kill()
    vanished(etcd, 5 + LATE)
    assert plugin.wait_exit() == 0


def test_a_stopped_engine_is_taken_back_and_comes_back(start: RunPlugin, etcd: Etcd) -> None:
    """Within the time that the plugin has promised."""
    etcd.up()
    plugin = start(ttl=LONG, interval=1)
    answering, _ = promised(plugin, "stopped")
    entered(etcd)
    plugin.engine.signal(signal.SIGSTOP)
    vanished(etcd, answering + LATE)
    assert plugin.wait_for("The engine is stopped: engine process").level == "warning"
    plugin.wait_for("Deregistered from etcd: engine is stopped")
    assert etcd.leases() == []
    plugin.engine.signal(signal.SIGCONT)
    entered(etcd)
    assert plugin.stop() == 0
    assert etcd.entry() is None


def test_a_stuck_engine_expires_though_etcd_cannot_be_told(start: RunPlugin, etcd: Etcd) -> None:
    """What is not refreshed is gone within the second promise."""
    etcd.up()
    plugin = start({"deregister_after": LONG})
    _, unreachable = promised(plugin, "stopped")
    entered(etcd)
    plugin.engine.signal(signal.SIGSTOP)
    vanished(etcd, unreachable + LATE)
    assert "Deregistered" not in texts(plugin)
    plugin.engine.signal(signal.SIGCONT)
    entered(etcd)


def test_a_stalled_engine_is_taken_back_and_comes_back(
    start: RunPlugin, etcd: Etcd, vllm: VllmStub
) -> None:
    """It has requests, and no token moves."""
    etcd.up()
    plugin = start(ttl=LONG)
    entered(etcd)
    vllm.values["running"] = 2.0
    vanished(etcd, 20)
    plugin.wait_for("The engine is stalled: no progress of engine 0 for")
    vllm.values["generation"] = 1.0
    entered(etcd)


def test_an_http_server_that_is_silent_is_taken_back(
    start: RunPlugin, etcd: Etcd, vllm: VllmStub
) -> None:
    """Clients would get no answer either."""
    etcd.up()
    plugin = start(ttl=LONG)
    entered(etcd)
    vllm.silent.set()
    vanished(etcd, 30)
    plugin.wait_for("The engine is unresponsive: GET ")


def test_bad_credentials_are_said_without_them_and_may_be_mended(
    start: RunPlugin, etcd: Etcd, tmp_path: Path
) -> None:
    """The password is read anew; so little as one prefix may be written suffices."""
    etcd.up().enable_auth()
    file = tmp_path / "password"
    file.write_text("wrong and secret\n")
    plugin = start(username="engine", password_file=str(file))
    line = plugin.wait_for("Cannot keep the entry in etcd: log in: ")
    assert line.level == "error"
    assert "authentication failed, invalid user ID or password" in line.text
    assert etcd.entry() is None
    file.write_text("engine's own\n")
    entered(etcd)
    file.write_text("engine's next\n")
    etcd.ask("/v3/auth/user/changepw", name="engine", password="engine's next")  # ends its token
    etcd.ask("/v3/kv/deleterange", key=encode(KEY))
    entered(etcd)
    assert plugin.stop() == 0
    assert etcd.entry() is None
    assert etcd.leases() == []
    assert "wrong and secret" not in plugin.log
    assert "engine's own" not in plugin.log
    assert "engine's next" not in plugin.log


class TokenGateway(HttpStub):
    """A gateway to an etcd that never passes on the refusal of a token.

    Args:
        etcd: The member behind it.
        status: What it answers instead; None: it closes the connection.
    """

    def __init__(self, etcd: Etcd, status: int | None) -> None:
        super().__init__()
        self.etcd = etcd
        self.status = status
        self.refusals = 0

    def handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        """Return the class that passes requests on."""
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                token = self.headers.get("Authorization")
                headers = {"Authorization": token} if token else {}
                try:
                    answer = httpx.post(
                        gateway.etcd.url + self.path, content=body, headers=headers, timeout=20
                    )
                    status, body = answer.status_code, answer.content
                except httpx.HTTPError:
                    status, body = 503, b""
                if token and b"invalid auth token" in body:
                    gateway.refusals += 1
                    if gateway.status is None:
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    status, body = gateway.status, b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        return Handler


@pytest.mark.parametrize("status", [None, 502])
def test_a_token_whose_refusal_does_not_arrive_is_dropped(
    start: RunPlugin, etcd: Etcd, status: int | None
) -> None:
    """A restarted etcd knows no earlier token; the gateway before it gives no 401."""
    etcd.up().enable_auth()
    gateway = TokenGateway(etcd, status)
    gateway.start()
    try:
        plugin = start(url=gateway.url, username="engine", password="engine's own")
        first = entered(etcd)
        etcd.stop()
        plugin.wait_for("Cannot keep the entry in etcd: ", 20)
        etcd.up().log_in()
        etcd.ask("/v3/kv/deleterange", key=encode(KEY))
        wait_until(lambda: another(etcd, first), 30, "an entry after the outage")
        # Now without an outage: the token alone becomes invalid.
        second = entered(etcd)
        etcd.ask("/v3/auth/user/changepw", name="engine", password="engine's own")
        etcd.ask("/v3/kv/deleterange", key=encode(KEY))
        wait_until(lambda: another(etcd, second), 30, "an entry after the token's end")
        assert gateway.refusals
        assert plugin.stop() == 0
        assert etcd.entry() is None
    finally:
        gateway.stop()


def test_missing_rights_are_said(start: RunPlugin, etcd: Etcd) -> None:
    """Logging in is not enough."""
    etcd.up().enable_auth()
    plugin = start(username="engine", password="engine's own", prefix="/elsewhere")
    assert plugin.wait_for("enter the key: etcdserver: permission denied").level == "error"
    plugin.stop()
    assert etcd.leases() == []


def test_no_name_where_one_is_asked_for_is_said(start: RunPlugin, etcd: Etcd) -> None:
    """And a name where none is asked for does no harm."""
    etcd.up()
    plugin = start(username="engine", password="engine's own")
    entered(etcd)
    assert plugin.wait_for("etcd has no authentication").level == "warning"
    plugin.stop()
    etcd.enable_auth()
    plugin = start()
    plugin.wait_for("enter the key: etcdserver: user name is empty")


def test_another_member_is_asked_when_the_first_is_away(
    start: RunPlugin, etcd: Etcd, tmp_path: Path
) -> None:
    """The first one is down for good."""
    etcd.up()
    plugin = start(url="http://127.0.0.1:9", other_urls=[etcd.url])
    entered(etcd)
    assert plugin.stop() == 0
    assert etcd.entry() is None


def test_a_cluster_may_lose_the_member_that_is_asked(
    run_plugin: RunPlugin, vllm: VllmStub, tmp_path: Path
) -> None:
    """Three members, one of them killed: the entry stays what it was, with the same lease."""
    ports = {name: free_port() for name in ("a", "b", "c")}
    members = [Etcd(tmp_path / name, name, ports) for name in ports]
    with contextlib.ExitStack() as stack:
        for member in members:
            stack.callback(member.stop)
            member.start()
        for member in members:
            wait_until(lambda m=member: _is_healthy(m), 60)
        target = {"url": members[0].url, "other_urls": [m.url for m in members[1:]], "ttl": 10}
        plugin = run_plugin(HEARTBEAT, settings=settings_for(vllm, etcd=target))
        first = entered(members[1])
        members[0].stop()
        time.sleep(10 + 3)  # more than the lease's time
        last = members[1].entry()
        assert last is not None
        assert (last["lease"], last["version"]) == (first["lease"], "1")
        assert plugin.stop() == 0
        assert members[1].entry() is None


def _is_healthy(member: Etcd) -> bool:
    try:
        return httpx.get(member.url + "/health", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def test_malformed_settings_are_said_with_their_full_keys(start: RunPlugin, etcd: Etcd) -> None:
    """And what cannot be kept is replaced by what can."""
    etcd.up()
    plugin = start({"prot": 1, "deregister_after": "soon"}, interval=3, timeout=300)
    entered(etcd)
    key = f"{SECTION}.etcd.interval"
    line = plugin.wait_for(f"Cannot use setting '{key}': found 3, accepted is less than half of")
    assert line.level == "error"
    assert (
        plugin.wait_for(f"Cannot use setting '{SECTION}.etcd.timeout': found 300").level == "error"
    )
    plugin.wait_for(f"{SECTION}.prot")
    plugin.wait_for(f"{SECTION}.deregister_after")


def test_without_an_address_of_etcd_there_is_nothing_to_do(
    run_plugin: RunPlugin, vllm: VllmStub
) -> None:
    """Exit code 125: not to be started again."""
    plugin = run_plugin(HEARTBEAT, settings=settings_for(vllm))
    assert plugin.wait_exit() == 125
    assert f"'{SECTION}' has none of 'etcd', 'consul' and 'http'" in texts(plugin)
    plugin = run_plugin(HEARTBEAT, settings=settings_for(vllm, etcd={"ttl": 10}))
    assert plugin.wait_exit() == 125
    assert f"{SECTION}.etcd.url" in texts(plugin)
