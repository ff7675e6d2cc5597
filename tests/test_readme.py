"""The commands of the README, run as they stand there but for the port."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from jobber.client import Client
from jobber.errors import ServerUnreachable
from tests.servers import free_port, wait_until

README = Path(__file__).parent.parent / "README.md"


def blocks(text: str) -> list[tuple[bool, str, str]]:
    """Return the marked code blocks: in the background or not, language, code."""
    found = re.findall(r"<!-- run( in the background)? -->\n```(\w+)\n(.*?)```", text, re.DOTALL)
    return [(bool(background), language, code) for background, language, code in found]


def test_the_five_minutes_of_the_readme_lead_to_a_result(tmp_path: Path) -> None:
    port = free_port()
    server = f"http://127.0.0.1:{port}"
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "JOBBER_SERVER": server, "PATH": f"{scripts}:{os.environ['PATH']}"}
    output, background = "", []
    try:
        for in_background, language, written in blocks(README.read_text()):
            code = written.replace("localhost:6060", f"localhost:{port}").replace("127.0.0.1:6060", f"127.0.0.1:{port}")
            if in_background:
                command = ["bash", "-ec", f"exec {code.strip()} --server 127.0.0.1:{port}"]
                background.append(subprocess.Popen(command, cwd=tmp_path, env=environment))
                wait_until(lambda: answers(server), timeout=40)
                continue
            command = ["bash", "-euo", "pipefail", "-c", code] if language == "shell" else [sys.executable, "-c", code]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
            )
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
            output += done.stdout
    finally:
        for process in background:
            process.terminate()
            process.wait(10)

    assert '{"entry_date":"2017-05-01","entries":1,"total":12.5}' in output.replace(" ", "")
    assert "get_profit_summary" in output
    assert "2017-12-24" in output
    # What the callback of the group was told.
    assert "results_user1" in output


def answers(server: str) -> bool:
    """Return whether a jobber answers there with its tasks."""
    try:
        with Client(server) as client:
            return bool(client.tasks())
    except ServerUnreachable:
        time.sleep(0.1)
        return False
