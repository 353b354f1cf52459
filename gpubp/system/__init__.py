"""The machine, its files and torch: the base of every other room, without any network.

A file per question: look for yours by name. files.py has the one way to read or replace a file; only gpus.py and
ambient.py know how torch is set up.
"""
