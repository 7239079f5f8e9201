"""Many runs at a glance."""
