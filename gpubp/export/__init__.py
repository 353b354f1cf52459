"""Networks as files of other formats, and networks of other libraries as rows: a file per format.

Read formats.py first, which lists them, and members.py, which has what each of them writes.
"""
