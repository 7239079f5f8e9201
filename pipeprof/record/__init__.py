"""The record of a run: schema, writer and reader. Measuring ends in it, everything else starts from it."""
