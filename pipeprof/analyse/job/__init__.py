"""Many ranks analysed together."""
