# SPDX-License-Identifier: Apache-2.0
"""The heartbeat's service at a strict stand-in of Consul's agent."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from consul_stub import ConsulStub
from harness import wait_until
from heartbeats import SECTION, kill_everything, settings_for, texts
from plugins import HEARTBEAT
from vllm_stub import VllmStub

from lmcache_plugin_adapter.kit.testing.trial import Trial

ID = "vllm-one"
TTL = 4
LONG = 600
LATE = 2.0
"""What a busy machine may add to a promised time, in seconds."""

RunPlugin = Callable[..., Trial]


@pytest.fixture
def agent() -> Iterator[ConsulStub]:
    """An agent that does not listen yet."""
    with ConsulStub() as agent:
        yield agent


@pytest.fixture
def vllm() -> Iterator[VllmStub]:
    """The HTTP server of vLLM."""
    with VllmStub() as vllm:
        yield vllm


@pytest.fixture
def start(run_plugin: RunPlugin, vllm: VllmStub, agent: ConsulStub) -> RunPlugin:
    """Start the plugin with a service in Consul; arguments are settings of that."""

    def start(more: dict[str, Any] | None = None, **target: Any) -> Trial:
        consul = {"url": agent.url, "ttl": TTL, **target}
        return run_plugin(HEARTBEAT, settings=settings_for(vllm, consul=consul, **(more or {})))

    return start


def becomes(agent: ConsulStub, state: str | None, seconds: float = 20.0) -> str:
    """Wait for a state of the check, or for the end of the service; return the output."""

    def look() -> tuple[str] | None:
        found = agent.state(ID)
        now, output = found or (None, "")
        return (output,) if now == state else None

    return wait_until(look, seconds, f"{state}")[0]


def test_a_working_engine_is_registered_passes_and_is_deregistered(
    start: RunPlugin, agent: ConsulStub, vllm: VllmStub
) -> None:
    """Every field; it never fails in between; SIGTERM ends it at once."""
    agent.start()
    plugin = start({"tags": ["h100"], "metadata": {"model": "m"}}, interval=1.0)
    assert becomes(agent, "passing") == "the engine works"
    service = agent.services[ID]
    assert {name: service[name] for name in ("Name", "Tags", "Address", "Port")} == {
        "Name": "vllm",
        "Tags": ["h100"],
        "Address": "10.1.2.3",
        "Port": vllm.port,
    }
    assert service["TTL"] == f"{TTL}s"
    assert service["DeregisterCriticalServiceAfter"] == "60s"
    meta = dict(service["Meta"])
    assert meta.pop("host")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", meta.pop("registered"))
    facts = {"role": "scheduler", "worker_count": "1", "dp_rank": "0", "dp_size": "1"}
    assert meta == {**facts, "model": "m"}
    end = time.monotonic() + TTL + 2
    while time.monotonic() < end:
        assert agent.state(ID) == ("passing", "the engine works")
        time.sleep(0.05)
    assert plugin.stop() == 0
    assert agent.state(ID) is None
    kinds = [(kind, status) for _, kind, status in agent.requests]
    assert kinds[:2] == [("register", "critical"), ("update", "passing")]
    assert set(kinds[2:-1]) == {("update", "passing")}
    assert kinds[-1] == ("deregister", ID)
    assert not [line for line in plugin.lines if line.level in ("warning", "error")]


def test_no_address_means_that_of_the_agents_node(start: RunPlugin, agent: ConsulStub) -> None:
    """The agent runs on the engine's host, and knows its address better."""
    agent.start()
    start({"address": None})
    becomes(agent, "passing")
    assert agent.services[ID]["Address"] == ""


@pytest.mark.parametrize("older", [False, True])
def test_an_agent_may_come_later_be_away_and_lose_its_data(
    start: RunPlugin, agent: ConsulStub, older: bool
) -> None:
    """Agents of all versions: 404, or 500 with a text."""
    agent.older = older
    plugin = start()
    assert plugin.wait_for("Cannot keep the service in Consul: ConnectError").level == "error"
    agent.start()
    becomes(agent, "passing")
    agent.stop()
    plugin.wait_for("its check turns critical in")
    assert becomes(agent, "critical", TTL + 20) == "TTL expired"
    plugin.wait_for("its check is critical by now")
    agent.start()
    becomes(agent, "passing")
    agent.forget()
    becomes(agent, "passing")
    plugin.wait_for("The Consul agent no longer knows the service: registering it again")
    agent.forget()
    assert plugin.stop() == 0
    assert "Cannot deregister" not in texts(plugin)


def test_a_slow_agent_is_waited_for_and_sigterm_ends_in_time(
    start: RunPlugin, agent: ConsulStub
) -> None:
    """It accepts connections and does not answer."""
    agent.start()
    plugin = start()
    becomes(agent, "passing")
    agent.silent.set()
    plugin.wait_for(
        "Cannot keep the service in Consul: no answer in time; its check turns critical in"
    )
    agent.silent.clear()
    plugin.wait_for("Consul has answered again")
    becomes(agent, "passing")
    agent.silent.set()
    begun = time.monotonic()
    assert plugin.stop() == 0
    assert time.monotonic() - begun < 5 + LATE  # 0: it was not killed when its 5 s were over
    plugin.wait_for(
        "Cannot deregister from Consul: no answer in time; its check turns critical in 4 s"
    )
    assert becomes(agent, "critical", TTL + 1 + LATE) == "TTL expired"


def test_a_bad_token_is_said_without_it_and_may_be_mended(
    start: RunPlugin, agent: ConsulStub, tmp_path: Path
) -> None:
    """The file is read for each request."""
    agent.token = "the good one"
    agent.start()
    file = tmp_path / "token"
    file.write_text("the bad one\n")
    plugin = start(token_file=str(file))
    line = plugin.wait_for("Cannot keep the service in Consul: register the service: HTTP 403")
    assert line.level == "error"
    assert "lacks permission 'service:write'" in line.text
    file.write_text("the good one\n")
    becomes(agent, "passing")
    assert plugin.stop() == 0
    assert agent.state(ID) is None
    assert "the bad one" not in plugin.log
    assert "the good one" not in plugin.log


def test_a_power_cut_turns_critical_and_is_removed(start: RunPlugin, agent: ConsulStub) -> None:
    """By the agent itself; here it has not as much time as in truth."""
    agent.haste = 15
    agent.start()
    plugin = start()
    becomes(agent, "passing")
    kill_everything(plugin)
    assert becomes(agent, "critical", TTL + 1 + LATE) == "TTL expired"
    becomes(agent, None, 60 / 15 + 1 + LATE)


def test_a_killed_engine_is_deregistered_in_the_grace_period(
    start: RunPlugin, agent: ConsulStub
) -> None:
    """Long before its time to live ends."""
    agent.start()
    plugin = start(ttl=LONG)
    becomes(agent, "passing")
    plugin.engine.kill()
    becomes(agent, None, 5 + LATE)
    assert plugin.wait_exit() == 0


def test_a_stopped_engine_is_critical_then_gone_and_comes_back(
    start: RunPlugin, agent: ConsulStub
) -> None:
    """With the reason, within the time that the plugin has promised."""
    agent.start()
    plugin = start({"deregister_after": 3}, ttl=LONG, interval=1)
    line = plugin.wait_for(re.compile("^Consul: engine stopped: "))
    critical, gone = (
        float(found) for found in re.findall(r"(?:critical|gone) within (\d+) s", line.text)
    )
    becomes(agent, "passing")
    begun = time.monotonic()
    plugin.engine.signal(signal.SIGSTOP)
    output = becomes(agent, "critical")
    told = time.monotonic()
    assert time.monotonic() - begun <= critical + LATE
    assert re.match(r"the engine is stopped: engine process \d+ is stopped \(state T\)", output)
    becomes(agent, None)
    assert 3 <= time.monotonic() - begun <= gone + LATE
    plugin.wait_for("Deregistered from Consul: engine is stopped")
    plugin.engine.signal(signal.SIGCONT)
    becomes(agent, "passing")
    assert "passing" not in {
        status for at, _, status in list(agent.requests) if told < at < begun + 3
    }


def test_an_engine_that_recovers_in_time_is_not_deregistered(
    start: RunPlugin, agent: ConsulStub, vllm: VllmStub
) -> None:
    """It was critical, and passes again."""
    agent.start()
    start({"deregister_after": LONG})
    becomes(agent, "passing")
    vllm.status = 503
    assert "HTTP 503" in becomes(agent, "critical")
    vllm.status = 200
    becomes(agent, "passing")
    assert [kind for _, kind, _ in agent.requests].count("register") == 1


def test_what_is_odd_is_a_warning_where_that_is_wanted(
    start: RunPlugin, agent: ConsulStub, vllm: VllmStub
) -> None:
    """Half of the time after which an engine counts as stalled has passed."""
    agent.start()
    more = {"engine": {"stalled_after": 20}}
    start(more, warnings=True, interval=0.2)
    becomes(agent, "passing")
    vllm.values["running"] = 1.0
    output = becomes(agent, "warning", 40)
    assert "the engine works, but: no progress of engine 0 for" in output


def test_malformed_settings_are_said_with_their_full_keys(
    start: RunPlugin, agent: ConsulStub
) -> None:
    """And replaced by what can be kept."""
    agent.start()
    plugin = start(interval=2, remove_critical_after=5, tokn="x")
    becomes(agent, "passing")
    plugin.wait_for(f"Cannot use setting '{SECTION}.consul.interval': found 2, accepted is")
    plugin.wait_for(f"{SECTION}.consul.remove_critical_after")
    plugin.wait_for(f"{SECTION}.consul.tokn")
    assert agent.services[ID]["DeregisterCriticalServiceAfter"] == "60s"
