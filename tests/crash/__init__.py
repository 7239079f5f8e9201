"""Whatever kills a program, fills its disk or stops its clock: the record stays readable."""
