"""The machine, its files and torch: what every other room stands on."""
