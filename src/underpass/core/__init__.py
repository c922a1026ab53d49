"""What every layer may use: settings, errors, ids, clock, logging, metrics, supervision."""
