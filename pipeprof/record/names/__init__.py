"""Names in the record's tables that writers and readers share: a misspelt one is a type error."""
