"""Operations: alarms, replay of deliveries, retention, usage sums, and commands for one generation."""
