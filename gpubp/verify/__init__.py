"""The promises of the package, checked on the machine, device and configuration of whoever asks: promises.py."""
