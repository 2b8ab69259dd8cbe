"""What measures: quality, orders, speed. Nothing that serves or trains imports it."""
