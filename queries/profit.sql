-- The profit reports of a marketplace. Each seller is a user; every sale, commission and refund is an entry.
--
-- A file holds any number of tasks. Each begins with its name; the comment lines below it are tags (db, queue, ttl …)
-- and, where they are none, the task's description. docs/task-files.md lists all tags.

-- name: get_profit_summary
-- What a seller earned on each day.
-- Args ["USER1"]
SELECT entry_date,
       COUNT(*) AS entries,
       ROUND(SUM(amount), 2) AS total
  FROM entries
 WHERE user_id = ?
 GROUP BY entry_date
 ORDER BY entry_date;

-- name: get_profit_entries
-- db: shop
-- queue: reports
-- results: reports
-- ttl: 1h
-- Every entry of a seller, oldest first. Runs on the database shop only, in a queue of its own, and its result is
-- dropped after an hour. Args ["USER1"]
SELECT entry_id, order_id, kind, amount, entry_date, timestamp
  FROM entries
 WHERE user_id = ?
 ORDER BY timestamp, entry_id;

-- name: get_profit_entries_by_date
-- param: user_id text
-- param: from_date date
-- param: to_date date = 9999-12-31
-- The entries of a seller from one day up to, not including, another. The params are checked when a job is submitted,
-- in the order of the placeholders; the last one may be left out. Args ["USER1", "2025-03-01", "2025-04-01"]
SELECT entry_id, order_id, kind, amount, entry_date, timestamp
  FROM entries
 WHERE user_id = ?
   AND entry_date >= ?
   AND entry_date < ?
 ORDER BY timestamp, entry_id;
