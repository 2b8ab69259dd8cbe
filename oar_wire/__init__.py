"""Messages that cross a process boundary: requests, answers, events and the facts that workers publish."""
