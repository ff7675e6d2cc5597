"""A private ClickHouse server. Of Debian only bookworm and older have one: elsewhere its tests are skipped, in CI too.

``JOBBER_TEST_CLICKHOUSE=/path/of/clickhouse`` runs them on a server of yours.
"""

from __future__ import annotations

import os
import pwd
import shutil
from typing import Any

from clickhouse_driver import Client, errors

from tests.servers import Server, ServerMissing, free_port

#: The root's name was yandex until 2021; newer servers take both.
_CONFIG = """<yandex>
  <logger><level>warning</level><console>1</console></logger>
  <tcp_port>{port}</tcp_port>
  {tls}
  <listen_host>127.0.0.1</listen_host>
  <mark_cache_size>67108864</mark_cache_size>
  <max_concurrent_queries>100</max_concurrent_queries>
  <path>{folder}/data/</path>
  <tmp_path>{folder}/tmp/</tmp_path>
  <user_files_path>{folder}/files/</user_files_path>
  <users_config>{folder}/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <timezone>Asia/Kolkata</timezone>
</yandex>
"""
_TLS = """<tcp_port_secure>{port}</tcp_port_secure>
  <openSSL><server><certificateFile>{folder}/tls.crt</certificateFile><privateKeyFile>{folder}/tls.key</privateKeyFile>
  <verificationMode>none</verificationMode><cacheSessions>false</cacheSessions></server></openSSL>"""
_USER = (
    "<{name}><password>{password}</password><networks><ip>::/0</ip></networks>"
    "<profile>{profile}</profile><quota>default</quota></{name}>"
)
_USERS = f"""<yandex>
  <profiles>
    <default></default>
    <fixed><readonly>1</readonly></fixed>
    <reading><readonly>2</readonly></reading>
    <partial><max_result_rows>10</max_result_rows><result_overflow_mode>break</result_overflow_mode></partial>
  </profiles>
  <users>
    {_USER.format(name="default", password="", profile="default")}
    {_USER.format(name="fixed", password="sesame", profile="fixed")}
    {_USER.format(name="reading", password="sesame", profile="reading")}
    {_USER.format(name="partial", password="sesame", profile="partial")}
  </users>
  <quotas><default></default></quotas>
</yandex>
"""


class ClickHouse(Server):
    """A ClickHouse server, reached as ``default`` without a password, in a zone that is not UTC."""

    def __init__(self, certificate: tuple[bytes, bytes] | None = None) -> None:
        """Make its folder; with a certificate and its key it speaks TLS on ``tls_port``, too."""
        self.program = self._find()
        with_account = any(account.pw_name == "clickhouse" for account in pwd.getpwall())
        super().__init__("clickhouse", "clickhouse" if with_account else None)
        self.tls_port = free_port()
        tls = ""
        if certificate:
            tls = _TLS.format(port=self.tls_port, folder=self.folder)
            for name, content in zip(("tls.crt", "tls.key"), certificate, strict=True):
                (self.folder / name).write_bytes(content)
        (self.folder / "config.xml").write_text(_CONFIG.format(port=self.port, folder=self.folder, tls=tls))
        (self.folder / "users.xml").write_text(_USERS)
        self._counter = 0

    @staticmethod
    def _find() -> list[str]:
        if chosen := os.environ.get("JOBBER_TEST_CLICKHOUSE"):
            return [chosen, "server"]
        if found := shutil.which("clickhouse-server", path=f"{os.environ['PATH']}:/usr/sbin"):
            return [found]
        raise ServerMissing("ClickHouse (package clickhouse-server)")

    def command(self) -> list[str]:
        return [*self.program, f"--config-file={self.folder}/config.xml"]

    def ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except errors.NetworkError:
            return False
        return True

    def url(self, database: str = "default", user: str = "default", password: str = "") -> str:
        """Return the URL of a database, as jobber's settings hold it."""
        return f"clickhouse://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "default", **settings: Any) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator and return its rows."""
        client = Client("127.0.0.1", self.port, database, connect_timeout=5, send_receive_timeout=60)
        try:
            found: list[tuple[Any, ...]] = client.execute(sql, settings=settings)
            return found
        finally:
            client.disconnect()

    def version(self) -> tuple[int, ...]:
        """Return its version: year and month of the release come first."""
        return tuple(int(part) for part in self.execute("SELECT version()")[0][0].split(".")[:2])

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        self._counter += 1
        name = f"test_{self._counter}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name}")
