"""Changes that can be tried on a script from outside: arguments of its loaders, an early end."""
