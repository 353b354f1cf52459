"""A command a file: NAME.py has ABOUT, its line of help, parser(), its flags, and run(settings) -> exit status.

Help, the version and refusals wait for no torch: run() imports what it needs.
"""
