-- name: entries_of
-- db: shop
-- concurrency: 5
-- queue: test
SELECT id, amount FROM entries WHERE user_id = ? ORDER BY id;

-- name: wait
-- db: shop
-- queue: test
SELECT SLEEP(?);
