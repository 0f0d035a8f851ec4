"""Test-time methods: cache, dynamic evaluation, mixtures, calibration."""
