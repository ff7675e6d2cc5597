--name: entries_of
--db: shop, replica
--queue: low_priority
SELECT id, amount FROM entries WHERE user_id = ? ORDER BY id;

-- name: totals-of-user 
-- db: shop
-- params: the user's ID
SELECT SUM(amount) AS total FROM entries WHERE user_id = ?
