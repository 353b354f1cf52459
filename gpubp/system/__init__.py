"""The machine, its files and torch: what every other room stands on, and no network.

A file per question: look for yours by name. files.py has the one way in which a file is read or replaced; gpus.py and
ambient.py are the only places that know how torch is set up.
"""
