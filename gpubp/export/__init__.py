"""Networks as files of other formats, and networks of other libraries as rows: a file per format."""
