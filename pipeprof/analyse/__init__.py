"""From a recorded run to who owned its time and what that means. Pure: no clock, no torch, no drawing."""
