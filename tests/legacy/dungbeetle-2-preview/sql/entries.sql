-- name: entries_of
SELECT id, amount FROM entries WHERE user_id = $1
