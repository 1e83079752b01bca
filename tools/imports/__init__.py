"""Imports: rows that a person brings, from a file, a folder or a data set of the hub to rows of a run.

`sources` finds and reads them, `formats` makes conversations of their records, `import_rows` is the stage, and `survey`
looks at all of them before a training on them is planned. What is kept of them `tools/data` decides, as of other rows.
"""
