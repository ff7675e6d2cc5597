"""What jobber costs, beside what the same work costs by hand or with the engines' own tools: ``make bench``."""
