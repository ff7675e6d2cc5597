"""The demo's source: a marketplace with sellers, products, customers, orders, and a ledger of entries.

The same number of entries always gives the same rows: what is random comes from a generator with a fixed seed, of
which only ``random()`` is used (https://docs.python.org/3/library/random.html#notes-on-reproducibility).
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

#: Entries that the demo makes unless told otherwise.
DEFAULT_ROWS = 200_000
#: The most is what the task export_entries allows (max_rows).
MIN_ROWS, MAX_ROWS = 1_000, 5_000_000

SELLERS, PRODUCTS, CUSTOMERS = 400, 3_000, 20_000
#: A sale and a commission for every order, and a refund for one order out of this many.
REFUND_EVERY = 17

_SEED = 20_250_101
_START = datetime(2025, 1, 1)
_YEAR = timedelta(days=365)
#: Stands in the file's header and changes with what this module makes (https://sqlite.org/pragma.html).
_FORMAT = 0x4A4F4201
_BATCH = 20_000

_FIRST = (
    *("Amara", "Bruno", "Chiara", "Devika", "Elif", "Farah", "Goran", "Hana", "Ines", "Jonas", "Kavya", "Lena"),
    *("Marek", "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Sanjay", "Tomas", "Uma", "Vera", "Wiktor", "Yusuf"),
)
_LAST = (
    *("Abreu", "Bauer", "Costa", "Dubois", "Eriksen", "Ferrari", "Ghosh", "Horvat", "Iyer", "Jansen", "Kowalski"),
    *("Lindqvist", "Mehta", "Novak", "Okafor", "Petrov", "Rao", "Silva", "Takeda", "Urban", "Varga", "Weber"),
)
_CITIES = (
    *(("Bengaluru", "IN"), ("Pune", "IN"), ("Lisbon", "PT"), ("Porto", "PT"), ("Vienna", "AT"), ("Graz", "AT")),
    *(("Kraków", "PL"), ("Gdańsk", "PL"), ("Lyon", "FR"), ("Bologna", "IT"), ("Malmö", "SE"), ("Utrecht", "NL")),
)
_TRADES = ("Books", "Ceramics", "Lamps", "Tea", "Bikes", "Garden", "Toys", "Prints", "Knives", "Wool")
_STYLES = ("Old", "Little", "Blue", "Northern", "Corner", "Harbour", "Sunday", "Copper", "Paper", "Linden")
#: Articles by category, each with its lowest and highest price in cents.
_ARTICLES = (
    ("kitchen", "Chef's Knife", 2900, 18900),
    ("kitchen", "Teapot", 1800, 7900),
    ("kitchen", "Cast-Iron Pan", 3500, 14900),
    ("home", "Desk Lamp", 2400, 15900),
    ("home", "Wool Blanket", 3900, 22900),
    ("home", "Wall Print", 900, 8900),
    ("garden", "Pruning Shears", 1400, 6900),
    ("garden", "Seed Box", 400, 2900),
    ("sport", "Bicycle Lock", 1900, 9900),
    ("sport", "Climbing Rope", 4900, 19900),
    ("toys", "Wooden Train", 1200, 8900),
    ("books", "Atlas", 1500, 12900),
)
_FINISHES = ("Classic", "Light", "Large", "Small", "Walnut", "Graphite", "Olive", "Second Edition")

_TABLES = """
CREATE TABLE sellers (
  user_id TEXT PRIMARY KEY, shop TEXT NOT NULL, city TEXT NOT NULL, country CHAR(2) NOT NULL,
  joined_on DATE NOT NULL, active BOOLEAN NOT NULL
);
CREATE TABLE products (
  product_id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, title TEXT NOT NULL, category TEXT NOT NULL,
  price DECIMAL(10,2) NOT NULL
);
CREATE TABLE customers (
  customer_id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, country CHAR(2) NOT NULL
);
CREATE TABLE orders (
  order_id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, product_id INTEGER NOT NULL, customer_id INTEGER NOT NULL,
  quantity INTEGER NOT NULL, total DECIMAL(12,2) NOT NULL, status TEXT NOT NULL, ordered_at TIMESTAMP NOT NULL
);
CREATE TABLE entries (
  entry_id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, order_id INTEGER NOT NULL, kind TEXT NOT NULL,
  amount DECIMAL(12,2) NOT NULL, entry_date DATE NOT NULL, timestamp TIMESTAMP NOT NULL
);
"""
_INDEXES = """
CREATE INDEX entries_by_user ON entries (user_id, entry_date);
CREATE INDEX orders_by_customer ON orders (customer_id);
"""

_Row = tuple[Any, ...]


def create_shop(path: Path, rows: int = DEFAULT_ROWS) -> None:
    """Create the demo's SQLite source; a file that holds the same data already is kept.

    Parameters:
        path: of the file; appears whole or not at all.
        rows: in the largest table, ``entries``.
    """
    if _holds(path, rows):
        return
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        # Half a file is thrown away, so nothing needs to be safe before the end.
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;" + _TABLES)
        _fill(connection, rows)
        connection.execute("COMMIT")
        connection.executescript(
            _INDEXES + f"ANALYZE; PRAGMA application_id = {_FORMAT}; PRAGMA user_version = {rows};"
        )
    os.replace(unfinished, path)


def _holds(path: Path, rows: int) -> bool:
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    except sqlite3.DatabaseError:
        return False
    return found == [_FORMAT, rows]


def _fill(connection: sqlite3.Connection, rows: int) -> None:
    chance = random.Random(_SEED)  # noqa: S311  # reproducible is what it must be
    prices = [_price(chance) for _ in range(PRODUCTS)]
    _insert(connection, "sellers", _sellers(chance))
    _insert(connection, "products", _products(chance, prices))
    _insert(connection, "customers", _customers(chance))
    sales = _sales(chance, prices, rows)
    while batch := list(islice(sales, _BATCH)):
        _insert(connection, "orders", (order for order, _ in batch))
        _insert(connection, "entries", (entry for _, entries in batch for entry in entries))


def _insert(connection: sqlite3.Connection, table: str, rows: Iterator[_Row]) -> None:
    if (first := next(rows, None)) is None:
        return
    statement = f"INSERT INTO {table} VALUES ({', '.join('?' * len(first))})"  # noqa: S608  # a name from above
    connection.execute(statement, first)
    connection.executemany(statement, rows)


def _sellers(chance: random.Random) -> Iterator[_Row]:
    for number in range(1, SELLERS + 1):
        city, country = _one(chance, _CITIES)
        joined = date(2018, 1, 1) + timedelta(days=int(chance.random() * 2500))
        shop = f"{_one(chance, _STYLES)} {city} {_one(chance, _TRADES)}"
        yield f"USER{number}", shop, city, country, joined.isoformat(), chance.random() > 0.03


def _price(chance: random.Random) -> tuple[int, int]:
    """Return an article's place in the list and a price in cents that ends in 0 or 9."""
    article = int(chance.random() * len(_ARTICLES))
    low, high = _ARTICLES[article][2:]
    cents = low + int((high - low) * chance.random() ** 2)
    return article, cents - cents % 10 + (9 if chance.random() < 0.5 else 0)


def _products(chance: random.Random, prices: list[tuple[int, int]]) -> Iterator[_Row]:
    for number, (article, cents) in enumerate(prices, 1):
        category, title, *_ = _ARTICLES[article]
        yield number, _seller_of(number), f"{title}, {_one(chance, _FINISHES)}", category, cents / 100


def _seller_of(product: int) -> str:
    # Each seller has a few products, as many as another: the sales differ.
    return f"USER{(product - 1) % SELLERS + 1}"


def _customers(chance: random.Random) -> Iterator[_Row]:
    for number in range(1, CUSTOMERS + 1):
        yield number, f"{_one(chance, _FIRST)} {_one(chance, _LAST)}", *_one(chance, _CITIES)


def _sales(chance: random.Random, prices: list[tuple[int, int]], rows: int) -> Iterator[tuple[_Row, list[_Row]]]:
    """Yield orders, oldest first, each with its entries, until there are ``rows`` entries."""
    orders = rows * REFUND_EVERY // (2 * REFUND_EVERY + 1) + 1
    step = _YEAR.total_seconds() / orders
    made = order_id = 0
    while made < rows:
        ordered = _START + timedelta(seconds=int(step * (order_id + chance.random())))
        order_id += 1
        # A few sellers sell much, most sell little: USER1 one order in twenty.
        seller = int(chance.random() ** 2 * SELLERS)
        product = seller + SELLERS * int(chance.random() * ((PRODUCTS - seller - 1) // SELLERS + 1)) + 1
        customer = int(chance.random() ** 1.5 * CUSTOMERS) + 1
        quantity = 1 + int(chance.random() ** 4 * 5)
        cents = prices[product - 1][1] * quantity
        refunded = order_id % REFUND_EVERY == 0
        status = "refunded" if refunded else "shipped" if order_id < orders * 0.99 else "paid"
        user, moment = f"USER{seller + 1}", ordered.isoformat(" ")
        day = moment[:10]
        order = (order_id, user, product, customer, quantity, cents / 100, status, moment)
        entries = [
            (made + 1, user, order_id, "sale", cents / 100, day, moment),
            (made + 2, user, order_id, "commission", -(cents * 8 // 100) / 100, day, moment),
        ]
        if refunded:
            back = (ordered + timedelta(days=2 + int(chance.random() * 14))).isoformat(" ")
            entries.append((made + 3, user, order_id, "refund", -cents / 100, back[:10], back))
        del entries[rows - made :]
        made += len(entries)
        yield order, entries


def _one(chance: random.Random, choices: tuple[Any, ...]) -> Any:
    return choices[int(chance.random() * len(choices))]
