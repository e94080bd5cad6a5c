"""The SQL record of deliveries, generations and transitions; only this package writes these tables."""
