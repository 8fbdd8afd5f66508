# SPDX-License-Identifier: Apache-2.0
"""What of the heartbeat is arithmetic: the view, contradictions, promised times, names."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from harness import wait_until

from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict
from lmcache_plugin_adapter.gallery.heartbeat.bounds import Bound, bounds
from lmcache_plugin_adapter.gallery.heartbeat.engine_view import EngineView
from lmcache_plugin_adapter.gallery.heartbeat.registrar import (
    REMINDER,
    Messages,
    Registrar,
    RegistrationProblem,
    RegistrationRefusedError,
)
from lmcache_plugin_adapter.gallery.heartbeat.registration import (
    advertised_address,
    default_instance,
    register,
)
from lmcache_plugin_adapter.gallery.heartbeat.rhythm import PAUSE, Rhythm, contradictions, rhythm_of
from lmcache_plugin_adapter.gallery.heartbeat.settings import Consul, Etcd, Heartbeat, Ping
from lmcache_plugin_adapter.gallery.heartbeat.targets.consul import ConsulTarget
from lmcache_plugin_adapter.kit import Context
from lmcache_plugin_adapter.kit.settings.section import read_settings

OK = Verdict(True, "", "ok")
STOPPED = Verdict(False, "stopped", "stopped")


def of(**settings: Any) -> Heartbeat:
    """Return settings, read from what stands in a file."""
    return msgspec.convert(settings, Heartbeat)


def context(role: str = "SCHEDULER", worker_id: int = -1, host: str = "node7") -> Context:
    """Return who the plugin is."""
    return Context(
        role=role, worker_id=worker_id, worker_count=2, name="x", host=host, engine_pid=4711
    )


class TestEngineView:
    """Verdicts for many."""

    def test_before_the_first_look_nothing_is_healthy(self) -> None:
        """Not for a moment."""
        seen = EngineView(5).read()
        assert (seen.verdict.healthy, seen.verdict.state) == (False, "starting")

    def test_an_old_verdict_is_none(self) -> None:
        """The one who looks may hang; then nobody may say that the engine works."""
        now = [100.0]
        view = EngineView(5, lambda: now[0])
        view.post(OK)
        now[0] = 105.0
        assert view.read().verdict == OK
        now[0] = 108.0
        seen = view.read()
        assert seen.verdict == Verdict(False, "not checked for 8 s", "unresponsive")
        assert seen.unhealthy_for == 3.0
        assert seen.stale
        view.post(STOPPED)
        now[0] = 110.0
        assert view.read().unhealthy_for == 5.0
        assert not view.read().stale
        view.post(OK)
        assert view.read().unhealthy_for == 0.0

    def test_time_counts_from_the_first_bad_verdict(self) -> None:
        """Whatever the later ones say."""
        now = [0.0]
        view = EngineView(5, lambda: now[0])
        view.post(OK)
        for now[0] in (1.0, 2.0, 3.0):
            view.post(STOPPED)
        view.post(Verdict(False, "gone", "dead"))
        assert view.read().unhealthy_for == 2.0

    def test_a_change_wakes_who_waits_and_more_of_the_same_does_not(self) -> None:
        """A refresh must not come more often because the engine is looked at more often."""
        view = EngineView(5)
        view.post(OK)
        number = view.read().number
        view.post(OK)
        assert view.read().number == number
        woken = threading.Event()

        def wait() -> None:
            view.wait(number, 30)
            woken.set()

        thread = threading.Thread(target=wait)
        thread.start()
        view.post(STOPPED)
        assert woken.wait(5)
        thread.join()
        begun = time.monotonic()
        view.close()
        view.wait(view.read().number - 1, 30)
        assert time.monotonic() - begun < 5
        assert view.read().closed


class TestRhythm:
    """What fits together, and what is done about what does not."""

    def test_defaults_contradict_nothing(self) -> None:
        """And leave time for two refreshes."""
        settings = of(
            etcd={"url": "http://e"}, consul={"url": "http://c"}, http={"url": "http://h"}
        )
        assert list(contradictions(settings)) == []
        assert settings.etcd is not None
        assert rhythm_of(settings.etcd) == Rhythm(5.0, 2.0, 15)

    def test_an_interval_of_half_the_ttl_is_too_long(self) -> None:
        """One lost refresh would be one too many."""
        settings = of(etcd={"url": "http://e", "ttl": 10, "interval": 5})
        (wrong,) = contradictions(settings)
        assert wrong.key == "etcd.interval"
        assert wrong.text.startswith(
            "found 5, accepted is less than half of 'etcd.ttl' (5), so that one lost refresh does "
            "no harm; 3.33333 is taken"
        )
        settings = of(consul={"url": "http://e", "ttl": 10, "interval": 4.9})
        assert list(contradictions(settings)) == []

    @pytest.mark.parametrize("ttl", [2, 3, 5, 15, 60, 3600])
    @pytest.mark.parametrize("share", [None, 0.1, 0.3, 0.49, 0.5, 2.0])
    @pytest.mark.parametrize("timeout", [0.1, 2, 10, 3600])
    def test_two_refreshes_fit_into_the_ttl(
        self, ttl: int, share: float | None, timeout: float
    ) -> None:
        """Whatever is written: one that fails, a pause, and a second one."""
        interval = None if share is None else share * ttl
        for kind in (Etcd, Consul):
            target = kind(url="http://x", ttl=ttl, interval=interval, timeout=timeout)
            rhythm = rhythm_of(target)
            assert rhythm.interval + 2 * rhythm.timeout + PAUSE <= ttl + 1e-9
            assert rhythm.timeout >= 0.1
            assert rhythm.interval < ttl / 2
            assert rhythm.timeout <= timeout

    def test_a_short_ttl_shortens_the_default_timeout_without_a_word(self) -> None:
        """Nobody has written it."""
        settings = of(etcd={"url": "http://e", "ttl": 3})
        assert list(contradictions(settings)) == []
        assert settings.etcd is not None
        assert rhythm_of(settings.etcd).timeout == 0.7
        settings = of(etcd={"url": "http://e", "ttl": 3, "timeout": 5})
        assert [wrong.key for wrong in contradictions(settings)] == ["etcd.timeout"]

    def test_a_ping_may_not_take_longer_than_its_interval(self) -> None:
        """The next one would be late."""
        settings = of(http={"url": "http://h", "interval": 3, "timeout": 4})
        assert [wrong.key for wrong in contradictions(settings)] == ["http.timeout"]
        assert settings.http is not None
        assert rhythm_of(settings.http) == Rhythm(3.0, 3.0, None)

    @pytest.mark.parametrize(
        ("kind", "values"),
        [
            (Etcd, {"ttl": 1}),
            (Etcd, {"interval": 0}),
            (Etcd, {"url": "etcd:2379"}),
            (Consul, {"remove_critical_after": 59}),
            (Consul, {"token": "a", "token_file": "b"}),
            (Ping, {"method": "DELETE"}),
            (Ping, {"success": [99]}),
            (Heartbeat, {"port": 0}),
            (Heartbeat, {"metadata": {"a b": "c"}}),
            (Heartbeat, {"metadata": {"a": "c" * 513}}),
            (Heartbeat, {"engine": {"failures": 0}}),
        ],
    )
    def test_what_no_target_would_take_is_refused(
        self, kind: type[msgspec.Struct], values: dict[str, Any]
    ) -> None:
        """Before it is sent."""
        values = {"url": "http://x", **values} if issubclass(kind, (Etcd, Consul, Ping)) else values
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(values, kind)


class TestBounds:
    """The times that are promised."""

    def test_defaults(self) -> None:
        """The table of the page, from the settings."""
        found = bounds(
            of(etcd={"url": "http://e"}, consul={"url": "http://c"}, http={"url": "http://h"})
        )
        assert found["etcd"] == {
            "dead": [Bound("gone", 5 + 4, 5 + 18)],
            "stopped": [Bound("gone", 10 + 4, 10 + 18)],
            "unresponsive": [Bound("gone", 14 + 4, 14 + 18)],
            "stalled": [Bound("gone", 68 + 4, 68 + 18)],
        }
        assert found["Consul"]["dead"] == [
            Bound("critical", 5 + 4, 5 + 17),
            Bound("gone", 5 + 4, 5 + 17 + 60 + 30),
        ]
        assert found["http"]["dead"] == [Bound("silent", 5 + 2, 5 + 2)]
        assert str(found["etcd"]["dead"][0]) == "gone within 9 s (23 s if it cannot be reached)"

    def test_an_entry_that_is_to_stay_expires_all_the_same(self) -> None:
        """It is not refreshed."""
        found = bounds(of(etcd={"url": "http://e"}, deregister_after=3600))
        assert found["etcd"]["stopped"] == [Bound("gone", 10 + 18, 10 + 18)]
        assert found["etcd"]["dead"] == [Bound("gone", 5 + 4, 5 + 18)]  # it does not recover

    def test_logging_in_takes_time(self) -> None:
        """Three requests instead of one."""
        found = bounds(of(etcd={"url": "http://e", "username": "a", "password": "b"}))
        assert found["etcd"]["dead"] == [Bound("gone", 5 + 12, 5 + 6 + 15 + 1)]

    def test_addresses_follow_from_the_port(self) -> None:
        """Unless they are given, or vLLM is not to be asked."""
        examination = of(port=8123).examination()
        assert examination.health_url == "http://127.0.0.1:8123/health"
        assert examination.metrics_url == "http://127.0.0.1:8123/metrics"
        examination = of(engine={"health_url": "https://x/up"}).examination()
        assert examination.health_url == "https://x/up"
        assert of(ask_vllm=False).examination().health_url is None

    def test_defaults_beside_lmcaches_server(self) -> None:
        """Its own port and service, and no requests to vLLM; settings win."""

        def beside(role: str, **settings: Any) -> Heartbeat:
            config = {"mp_config": {"port": 5555}}
            ctx = Context(role=role, worker_id=0, worker_count=1, name="x", config=config)
            return of(**settings).completed(ctx)

        found = beside("SERVER")
        assert (found.service, found.port) == ("lmcache", 5555)
        assert found.examination().health_url is None
        found = beside("SERVER", port=7, service="cache")
        assert (found.service, found.port) == ("cache", 7)
        assert beside("SCHEDULER").examination().health_url == "http://127.0.0.1:8000/health"


class TestRegistration:
    """Names and addresses."""

    def test_an_instance_is_named_by_host_port_replica_and_role(self) -> None:
        """Two engines of a host differ, and so do two workers."""
        assert default_instance(context(), 8000) == "node7-8000-dp0-scheduler"
        assert default_instance(context("WORKER", 3), 8000) == "node7-8000-dp0-worker-3"
        assert default_instance(context(host="a/b c"), 1) == "a-b-c-1-dp0-scheduler"

    def test_settings_go_first(self) -> None:
        """Then what follows from the context."""
        found = register(context(), of(instance="me", address="::7", tags=["a"]))
        assert (found.instance, found.address, found.host) == ("me", "::7", "node7")
        assert (found.role, found.engine_pid, found.tags) == ("scheduler", 4711, ["a"])
        assert found.named == "'me' ([::7]:8000)"
        assert len(found.to_metadata()) <= 16

    @pytest.mark.parametrize(
        "local",
        [
            "0.0.0.0",
            "::",
            "[::]",
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "::ffff:127.0.0.1",
            "localhost",
            "LocalHost.",
            "localhost.localdomain",
            "vllm.localhost",
        ],
    )
    def test_an_address_that_leads_others_to_themselves_is_replaced(
        self, local: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Each is named in a warning, with what is registered instead."""
        environ = {"VLLM_HOST_IP": local, "POD_IP": "5.6.7.8"}
        assert advertised_address(environ, "h") == "5.6.7.8"
        printed = capsys.readouterr().out
        assert f"Cannot register VLLM_HOST_IP '{local}'" in printed
        assert "registering '5.6.7.8' instead" in printed
        assert advertised_address({"POD_IP": "5.6.7.8"}, "h", local) == "5.6.7.8"
        assert f"Cannot register address '{local}'" in capsys.readouterr().out
        found = advertised_address({"VLLM_HOST_IP": local, "POD_IP": local}, "h", local)
        assert not found.startswith(("127.", "0.", "::", "local"))
        assert advertised_address(environ, "h", "10.1.2.3") == "10.1.2.3"

    def test_the_address_is_vllms_own_or_the_pods_or_that_of_the_route(self) -> None:
        """In this order."""
        assert (
            advertised_address({"VLLM_HOST_IP": "1.2.3.4", "POD_IP": "5.6.7.8"}, "h") == "1.2.3.4"
        )
        assert advertised_address({"VLLM_HOST_IP": " ", "POD_IP": "5.6.7.8"}, "h") == "5.6.7.8"
        address = advertised_address({}, "h")
        assert not address.startswith("127.")
        if "\t00000000\t" in Path("/proc/net/route").read_text():  # there is a default route
            assert ipaddress.ip_address(address)
        else:
            assert address

    def test_own_metadata_goes_over_facts(self) -> None:
        """Whoever names one of them means it."""
        found = register(context(), of(metadata={"host": "other", "model": "m"})).to_metadata()
        assert (found["host"], found["model"], found["role"]) == ("other", "m", "scheduler")


class Recorder:
    """A target that notes what it is asked to do."""

    name = "recorder"
    where = ""
    messages = Messages("entered", "keep", "missing", "left", "leave")
    rhythm = Rhythm(0.02, 0.01, 1)
    keeps_nothing = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def refresh(self, verdict: Verdict, wanted: Callable[[], bool]) -> bool:
        """Note it."""
        self.asked.append("refresh" if wanted() else "not wanted")
        return True

    def complain(self, verdict: Verdict, timeout: float) -> bool:
        """Note it."""
        self.asked.append("complain")
        return True

    def leave(self, timeout: float) -> None:
        """Note it."""
        self.asked.append("leave")


class TestRegistrar:
    """What becomes of an entry."""

    def test_a_stale_verdict_stops_refreshing_and_takes_nothing_back(self) -> None:
        """A host that was paused for a moment must not drop its engine when it wakes up."""
        now = [0.0]
        view, target = EngineView(5, lambda: now[0]), Recorder()
        view.post(OK)
        registrar = Registrar(target, view, 0, lambda: 5.0)
        registrar.start()
        wait_until(lambda: len(target.asked) > 3)
        now[0] = 100.0
        asked = len(target.asked)
        time.sleep(0.3)  # the time of 15 refreshes
        assert len(target.asked) <= asked + 1
        view.post(OK)
        wait_until(lambda: len(target.asked) > asked + 3)
        assert set(target.asked) <= {"refresh", "not wanted"}
        view.close()
        assert registrar.join(5)
        assert target.asked[-1] == "leave"

    def test_what_never_worked_is_not_said_to_have_been_left(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is left all the same: a request may have been carried out without an answer."""

        class Silent(Recorder):
            def refresh(self, verdict: Verdict, wanted: Callable[[], bool]) -> bool:
                super().refresh(verdict, wanted)
                raise RegistrationRefusedError("not today")

        view, target = EngineView(5), Silent()
        view.post(OK)
        registrar = Registrar(target, view, 0, lambda: 5.0)
        registrar.start()
        wait_until(lambda: target.asked)
        view.close()
        assert registrar.join(5)
        assert target.asked[-1] == "leave"
        lines = capsys.readouterr().out.splitlines()
        assert [line[:3] for line in lines] == ["<3>"]

    def test_a_dead_engine_is_not_waited_for(self) -> None:
        """Others may recover."""
        view, target = EngineView(5), Recorder()
        view.post(OK)
        registrar = Registrar(target, view, 600, lambda: 5.0)
        registrar.start()
        wait_until(lambda: target.asked)
        view.post(STOPPED)
        wait_until(lambda: target.asked.count("complain") > 3)
        assert "leave" not in target.asked
        view.post(Verdict(False, "gone", "dead"))
        wait_until(lambda: target.asked[-1] == "leave")
        view.close()
        assert registrar.join(5)
        assert target.asked.count("leave") == 1

    def test_what_was_never_entered_is_not_taken_back(self) -> None:
        """The engine has never worked."""
        view, target = EngineView(5), Recorder()
        registrar = Registrar(target, view, 0, lambda: 5.0)
        registrar.start()
        view.post(STOPPED)
        time.sleep(0.1)
        view.close()
        assert registrar.join(5)
        assert target.asked == []


@pytest.mark.parametrize(
    "section",
    [
        {"engine": {"health_url": "http://h:s3cret"}},
        {"engine": {"metrics_url": "http://h:s3cret/metrics"}},
        {"etcd": {"url": "http://h", "other_urls": ["http://h:1", "http://h:s3cret"]}},
        {"http": {"url": "http://h", "fail_url": "http://h:99999/"}},
        {"http": {"url": "http://h", "stop_url": "http://h:-1/s3cret"}},
    ],
)
def test_what_only_looks_like_an_address_is_refused(section: dict[str, Any]) -> None:
    """With the settings, which says where; later, it would end the plugin again and again."""
    with pytest.raises(
        msgspec.ValidationError, match=r"_url(s\[1\])? (is no|has an invalid)"
    ) as error:
        of(**section)
    assert "s3cret" not in str(error.value)


def test_the_path_of_a_ping_is_not_shown() -> None:
    """Who knows it may ping."""
    assert of(http={"url": "https://me:pw@h:1/3b9b6a1e?x=1"}).http.shown == "https://h:1/…"
    assert of(http={"url": "https://h"}).http.shown == "https://h"


def test_consul_is_told_durations_as_go_reads_them() -> None:
    """Go knows no exponents."""
    settings = of(consul={"url": "http://h", "remove_critical_after": 30 * 86400})
    target = ConsulTarget(settings.consul, register(context(), settings), None)
    assert target._service["Check"]["DeregisterCriticalServiceAfter"] == "2592000s"


def test_trouble_is_said_once_again_after_a_while_and_when_it_is_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is repeated meanwhile is not, not even for debugging: it may last for hours."""

    class RegistryTarget:
        name = "etcd"
        messages = Messages("", "keep the entry", "not there", "", "")
        rhythm = Rhythm(5, 2, 15)

    now = [0.0]
    problem = RegistrationProblem(RegistryTarget(), lambda: now[0])  # type: ignore[arg-type]
    problem.over()
    for now[0] in (5.0, 6.0, 16.0, 17.0, 17.0 + REMINDER):
        problem.report("no answer in time")
    now[0] += 1.0
    problem.over()
    levels = [line[:3] for line in capsys.readouterr().out.splitlines()]
    # expires in 10 s; has expired; the reminder; over
    assert levels == ["<4>", "<3>", "<3>", "<6>"]


def test_no_module_of_the_heartbeat_is_long() -> None:
    """Each has one concern."""
    from lmcache_plugin_adapter.gallery import heartbeat

    for module in Path(str(heartbeat.__file__)).parent.rglob("*.py"):
        assert len(module.read_text().splitlines()) < 300


def test_the_page_has_the_times_of_the_default_settings() -> None:
    """What operators read is computed, too."""
    found = bounds(of(etcd={"url": "http://e"}, consul={"url": "http://c"}))
    rows = []
    for state, (gone,) in found["etcd"].items():
        critical = found["Consul"][state][0]
        times = (gone.answering, gone.unreachable, critical.answering, critical.unreachable)
        rows.append(f"| {state} | " + " | ".join(f"{seconds:.0f}" for seconds in times) + " |")
    page = (Path(__file__).parents[3] / "docs/plugin-authors/gallery/heartbeat.md").read_text()
    table = page.partition("<!-- test: heartbeat bounds -->")[2].split("\n\n")[1]
    assert table.splitlines()[2:] == rows


def test_the_examples_of_the_page_are_accepted() -> None:
    """The whole file as well as the parts of one."""
    page = (Path(__file__).parents[3] / "docs/plugin-authors/gallery/heartbeat.md").read_text()
    examples = [yaml.safe_load(part.partition("```")[0]) for part in page.split("```yaml\n")[1:]]
    assert len(examples) == 3
    whole, *parts = examples
    assert whole["runtime_plugin_locations"] == ["pkg:scheduler_heartbeat"]
    plugins = whole["extra_config"]["runtime_plugins"]["plugins"]
    for part in (plugins["scheduler_heartbeat"]["settings"], *parts):
        settings = read_settings("section", part, Heartbeat)
        assert list(contradictions(settings)) == []
