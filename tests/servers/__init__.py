"""The servers themselves: what the other tests stand on."""
