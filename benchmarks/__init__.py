"""Side-by-side measurements, one command: `make bench`, or `make bench ONLY=heads` for one group."""
