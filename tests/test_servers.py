"""The private servers that all other tests stand on."""

from __future__ import annotations

import kombu
import psycopg
import redis

from tests.servers import MariaDB, Postgres, RabbitMQ


def test_each_test_gets_an_empty_postgresql_database(postgres: Postgres, postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert tables.fetchone() == (0,)


def test_each_test_gets_an_empty_redis(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_each_test_gets_an_empty_mariadb_database(mariadb: MariaDB, mariadb_url: str) -> None:
    assert mariadb.execute("SHOW TABLES", mariadb_url.rpartition("/")[2]) == []


def test_rabbitmq_keeps_durable_queues_over_a_restart(rabbitmq: RabbitMQ) -> None:
    with kombu.Connection(rabbitmq.url) as connection:
        kombu.Queue("kept", durable=True)(connection).declare()
    rabbitmq.stop()
    rabbitmq.start()

    assert "kept" in rabbitmq.names()
    assert rabbitmq.eval('X = "a", {X, <<"b">>, 1.5}') == '{"a",<<"b">>,1.5}'
