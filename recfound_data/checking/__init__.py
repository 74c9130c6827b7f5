"""The rules of a check, each over files that are read again a few thousand rows at a time.

What a rule must remember of a row it keeps as 64-bit hashes, so memory grows by some tens of bytes a row and never with
the length of its texts.
"""
