-- entries.sql
-- concurrency belongs to a task

-- name: entries_of
-- db: shop
-- concurrency: 5
SELECT id, amount FROM entries WHERE user_id = $1;

-- name: totals
-- db: shop
-- queue: summarise
SELECT user_id, SUM(amount) AS total FROM entries GROUP BY user_id;
