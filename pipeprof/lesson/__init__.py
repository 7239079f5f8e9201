"""The claims of CS231n, lecture 8: run, checked and explained. An application on top of all rooms."""
