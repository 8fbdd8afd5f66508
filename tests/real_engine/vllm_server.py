# SPDX-License-Identifier: Apache-2.0
"""A real vLLM server on the CPU."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from site_under_test import ServerProcess, Site, free_port, killed_at_the_end

START_SECONDS = 300


class Server(ServerProcess):
    """``vllm`` serving the tiny model with LMCache; see :func:`serving`."""

    def __init__(
        self,
        site: Site,
        model: Path,
        *arguments: str,
        connector: dict[str, Any] | None = None,
        port: int | None = None,
        **environ: str,
    ) -> None:
        self.port = port or free_port()
        transfer = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both", **(connector or {})}
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(model), "--served-model-name", "tiny", "--port", str(self.port)]
        command += ["--host", "127.0.0.1", "--max-model-len", "512", "--enforce-eager"]
        # Not bfloat16: on some virtual machines its AMX kernels end in SIGILL.
        command += ["--dtype", "float32", "--kv-transfer-config", json.dumps(transfer)]
        command += ["--max-num-seqs", "8", *arguments]
        defaults = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        super().__init__(site, self.port, command, {**defaults, **environ}, START_SECONDS)

    def is_healthy(self) -> bool:
        """Return whether vLLM answers its health check."""
        url = f"http://127.0.0.1:{self.port}/health"
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)

    def complete(self, prompt: str = "the quick brown fox", tokens: int = 8) -> str:
        """Request a completion and return its text."""
        body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return str(json.loads(reply.read())["choices"][0]["text"])

    def completion_milliseconds(self, number: int = 40) -> float:
        """Return the median time of a completion of 16 tokens."""
        times = []
        for _ in range(number):
            began = time.perf_counter()
            self.complete(tokens=16)
            times.append(time.perf_counter() - began)
        return sorted(times)[number // 2] * 1000

    def pids(self, title: str) -> list[int]:
        """Return the server's processes whose title vLLM set to ``title``."""
        return [pid for pid, line in self.site.processes().items() if title in line]

    @property
    def engine_core(self) -> int:
        """The process of vLLM's engine core."""
        (pid,) = self.pids("EngineCore")
        return pid

    def signal_group(self, number: int) -> None:
        """Signal the foreground process group, as a terminal does on Ctrl-C."""
        os.killpg(self.process.pid, number)


@contextlib.contextmanager
def serving(site: Site, model: Path, *arguments: str, **options: Any) -> Iterator[Server]:
    """Serve; no process is left afterwards, in any case."""
    with killed_at_the_end(site):
        yield Server(site, model, *arguments, **options)
