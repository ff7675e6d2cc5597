-- Looking up orders: quick questions of people who wait for the answer.

-- name: find_orders
-- priority: 8
-- timeout: 30s
-- max_rows: 10000
-- param: customer text = null
-- param: status text = null
-- param: at_least number = 0
-- Orders by the beginning of the customer's name, by status (paid, shipped, refunded) and by amount. What is null or
-- left out does not narrow the search. Args {"customer": "Amara", "status": "refunded"}
SELECT o.order_id,
       o.ordered_at,
       c.name AS customer,
       p.title AS product,
       o.quantity,
       o.total,
       o.status
  FROM orders o
  JOIN customers c ON c.customer_id = o.customer_id
  JOIN products p ON p.product_id = o.product_id
 WHERE (:customer IS NULL OR c.name LIKE :customer || '%')
   AND (:status IS NULL OR o.status = :status)
   AND o.total >= :at_least
 ORDER BY o.ordered_at DESC, o.order_id DESC;

-- name: get_daily_revenue
-- raw: 1
-- Orders and revenue of every day. Because of raw it is not prepared when the server starts, so the table may be made
-- later than the server.
SELECT date(ordered_at) AS day,
       COUNT(*) AS orders,
       ROUND(SUM(total), 2) AS revenue,
       ROUND(AVG(total), 2) AS average
  FROM orders
 GROUP BY day
 ORDER BY day;
