"""The words of the product, one record each: owners of time, causes, fixes, mechanisms, bands.

A word that is stored in a record or printed as JSON stands as a string literal in this package only. Everyone
else names the record: `owners.COLLATE.name`, `causes.STRAGGLER.word`, `fixes.RAM.word`.
"""
