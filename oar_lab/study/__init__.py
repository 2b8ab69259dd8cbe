"""The study of orders: which arms, which claims, which report."""
