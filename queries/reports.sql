-- Reports over all sellers: heavier than those in profit.sql, and kept from running side by side.

-- name: export_entries
-- queue: reports
-- concurrency: 1
-- priority: 3
-- timeout: 10m
-- retries: 2
-- retry_on: transient
-- max_rows: 5000000
-- ttl: 6h
-- index: user_id, entry_date
-- The whole ledger with what was sold to whom. One at a time, behind more urgent jobs of its queue; a job fails rather
-- than write more than five million rows.
SELECT e.entry_id,
       e.user_id,
       s.shop,
       e.order_id,
       p.title AS product,
       p.category,
       c.name AS customer,
       o.quantity,
       e.kind,
       e.amount,
       e.entry_date,
       e.timestamp
  FROM entries e
  JOIN orders o ON o.order_id = e.order_id
  JOIN products p ON p.product_id = o.product_id
  JOIN customers c ON c.customer_id = o.customer_id
  JOIN sellers s ON s.user_id = e.user_id
 ORDER BY e.entry_id;

-- name: get_top_sellers
-- param: since date = 2025-01-01
-- param: sellers integer = 10
-- timeout: 1m
-- The sellers who earned most since a day, and the share of their sales that came back.
-- Args {"since": "2025-07-01"}
WITH earned AS (
  SELECT user_id,
         SUM(kind = 'sale') AS sales,
         SUM(kind = 'refund') AS refunds,
         SUM(amount) AS profit
    FROM entries
   WHERE entry_date >= :since
   GROUP BY user_id
)
SELECT RANK() OVER (ORDER BY e.profit DESC) AS place,
       s.shop,
       s.joined_on,
       e.sales,
       ROUND(100.0 * e.refunds / e.sales, 1) AS returned_pct,
       ROUND(e.profit, 2) AS profit
  FROM earned e
  JOIN sellers s ON s.user_id = e.user_id
 WHERE e.sales > 0
 ORDER BY e.profit DESC, s.user_id
 LIMIT :sellers;

-- name: get_cohorts
-- queue: reports
-- concurrency: 2
-- timeout: 5m
-- How many of the customers who first bought in one month came back in the months after it, and what they spent.
WITH bought AS (
  SELECT customer_id,
         total,
         CAST(strftime('%Y', ordered_at) AS INTEGER) * 12 + CAST(strftime('%m', ordered_at) AS INTEGER) - 1 AS month
    FROM orders
),
first_bought AS (
  SELECT customer_id, MIN(month) AS month
    FROM bought
   GROUP BY customer_id
)
SELECT printf('%d-%02d', f.month / 12, f.month % 12 + 1) AS cohort,
       b.month - f.month AS months_later,
       COUNT(DISTINCT b.customer_id) AS customers,
       COUNT(*) AS orders,
       ROUND(SUM(b.total), 2) AS spent
  FROM bought b
  JOIN first_bought f ON f.customer_id = b.customer_id
 GROUP BY f.month, b.month
 ORDER BY f.month, b.month;
