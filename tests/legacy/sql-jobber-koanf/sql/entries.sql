-- entries.sql

-- name: entries_of
-- results: first, second,
-- queue: low_priority
-- Author: the shop's team
SELECT id, amount FROM entries
-- only one of the users
WHERE user_id = $1;
-- db: shop

-- name: totals
SELECT SUM(amount) AS total FROM entries WHERE user_id = $1::text;
