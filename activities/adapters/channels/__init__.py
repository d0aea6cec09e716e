"""One client per channel behind one protocol, and one table that says what every answer means."""
