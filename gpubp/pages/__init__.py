"""Pages of HTML that need no network: one file has all that it shows."""
