"""Analysis of a recorded run: who owned its time, what that means. Pure: no clock, no torch, no drawing."""
