"""One replica: what the app changes is captured, pushed, and merged with what is pulled."""
