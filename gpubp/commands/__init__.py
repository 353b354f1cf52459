"""One file per command: NAME.py has ABOUT, its line of help, parser(), its flags, and run(settings) -> exit status.

run() imports what it needs, so that help, the version and refusals do not wait for torch.
"""
