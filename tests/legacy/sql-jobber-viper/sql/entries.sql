-- Reports on entries

-- name: entries_of
-- db: shop
SELECT id, amount FROM entries WHERE user_id = ?;

-- name: totals
-- raw: 1
-- Not prepared when the server starts
SELECT SUM(amount) AS total,
	COUNT(*) AS n
FROM entries
WHERE user_id = ?
