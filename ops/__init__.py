"""Tools of those who run the server: the dashboard's source, and how to look at it without Grafana."""
